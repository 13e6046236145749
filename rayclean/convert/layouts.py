"""The layouts of data sets: what `rayclean convert` may name, and the options of each.

To add one, write its function in a file of its own and an entry here; from outside the package, register the entry
(docs/adding.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rayclean.config.registry import Entry, Registry
from rayclean.errors import ConfigError

Given = str | Iterable[str] | None
Value = str | int | list[str] | None


@dataclass(frozen=True)
class Option:
    """What a layout asks for beside the folder.

    Attributes:
        name: `--NAME`; the argument of the layout's function, there with _ for -.
        help: a line for people.
        default: None: it may be left open, or is a list without a default.
        metavar: what its value is called; empty: TEXT.
        choices: all values that it may have; empty for any.
        many: whether it may be given several times; the value is then a list, by default of all choices.
        counts: whether it is a whole number, at least 1.
    """

    name: str
    help: str
    default: str | None = None
    metavar: str = ""
    choices: tuple[str, ...] = ()
    many: bool = False
    counts: bool = False

    @property
    def argument(self) -> str:
        """Its name in Python."""
        return self.name.replace("-", "_")

    def value(self, given: Given) -> Value:
        """What the layout's function gets.

        Args:
            given: the text; of `many` all of them, in order; None or nothing where it was not given.

        Raises:
            ConfigError: none of the choices, or no count.
        """
        if self.many:
            texts = [given] if isinstance(given, str) else list(given or ())
            return list(dict.fromkeys(self._checked(text) for text in texts)) or list(self.choices)
        text = self.default if given is None else str(given)
        if text is None or not self.counts:
            return text if text is None else self._checked(text)
        if not text.isdecimal() or int(text) < 1:
            raise ConfigError(f"--{self.name} {text}: expected a whole number from 1 on")
        return int(text)

    def _checked(self, text: str) -> str:
        if self.choices and text not in self.choices:
            raise ConfigError(f"--{self.name} {text}: expected one of {', '.join(self.choices)}")
        return text


@dataclass(frozen=True)
class Layout(Entry):
    """A layout of a data set that is not shards yet.

    Attributes:
        function: from `rayclean.convert.samples.Source`, and by name the value of each option, to `Found`: lists the
            samples and writes nothing. The same source and options give the same list.
        details: paragraphs for the help: what ROOT holds, and which splits and fields come out.
        options: those of it alone.
    """

    details: str = ""
    options: tuple[Option, ...] = ()

    def values(self, given: Mapping[str, Given]) -> dict[str, Value]:
        """All options' values by argument.

        Raises:
            ConfigError: a value out of range, or an option that the layout has not.
        """
        known = {option.argument: option for option in self.options}
        if strange := sorted(set(given) - set(known)):
            names = ", ".join(f"--{option.name}" for option in self.options)
            raise ConfigError(f"convert {self.name}: found option --{strange[0]}, expected {names}; leave it out")
        return {name: option.value(given.get(name)) for name, option in known.items()}


LAYOUTS = Registry(
    "rayclean convert",
    "layout",
    (
        Layout(
            "imagefolder",
            "image files, one folder per class, as torchvision's ImageFolder has them",
            "rayclean.convert.imagefolder:imagefolder",
            details="ROOT/CLASS/**/IMAGE, in folders as deep as they come. Labels count the classes in the order of "
            "their names, or of a file of names. Hidden files are left alone, other files than images counted.\n\n"
            "JSON: label.",
            options=(
                Option("split", "Prefix of the shards' names.", default="train"),
                Option("classes", "A file with one class per line, by label; without it the folders.", metavar="FILE"),
            ),
        ),
        Layout(
            "huggingface",
            "Parquet files, a folder of save_to_disk, or a name on the hub",
            "rayclean.convert.huggingface:huggingface",
            details="In a folder of Parquet files those are taken whose path has the split as a part, as "
            "data/train-00000-of-00002.parquet. A name on the hub needs the library that fetches it: pip install "
            "'rayclean[huggingface]'. Class names are those of the files' metadata, else the label column's different "
            "texts in order, else its numbers. Parquet cannot be read row by row: its images are unpacked first, which "
            "needs as much disk as they do until the end.\n\n"
            "The key is the row's number. JSON: label, the columns of --also, file, row.",
            options=(
                Option("split", "Which, and the prefix of the shards' names.", default="train"),
                Option("subset", "Of a data set of the hub, where it has several.", metavar="NAME"),
                Option("files", "Parquet files below ROOT; without it those of the split.", metavar="GLOB"),
                Option("image", "The images; without it the only column of images.", metavar="COLUMN"),
                Option("label", "The given labels.", default="label", metavar="COLUMN"),
                Option("also", "A further field of the JSON; may be given again.", metavar="COLUMN", many=True),
                Option("images", "Of images that rows only name; without it ROOT.", metavar="FOLDER"),
                Option("scratch", "Where Parquet is unpacked; without it beside the shards.", metavar="FOLDER"),
            ),
        ),
        Layout(
            "clothing1m",
            "Clothing1M (Xiao et al., CVPR 2015), with both labels where an image has both",
            "rayclean.convert.clothing1m:clothing1m",
            details="ROOT, or its annotations/, holds the lists: category_names_eng.txt, noisy_label_kv.txt, "
            "clean_label_kv.txt, noisy_train_key_list.txt, clean_train_key_list.txt, clean_val_key_list.txt and "
            "clean_test_key_list.txt. The images are unpacked to images/0 .. images/9, or to 0 .. 9.\n\n"
            "Splits: noisy_train; clean_train, val and test, with clean labels; both, all images that have both "
            "labels. JSON: label, and noisy_label and clean_label where the image has them.",
            options=(
                Option(
                    "splits",
                    "Without it all; may be given again.",
                    choices=("noisy_train", "clean_train", "val", "test", "both"),
                    many=True,
                ),
            ),
        ),
        Layout(
            "webvision",
            "WebVision 1.0 (Li et al., 2017); mini-WebVision by --source google --classes 50",
            "rayclean.convert.webvision:webvision",
            details="ROOT holds info/ (synsets.txt, train_filelist_google.txt, train_filelist_flickr.txt, "
            "val_filelist.txt), the training images in google/ and flickr/, and those of validation in "
            "val_images_256/ or val_images/; resized or original.\n\n"
            "Splits: train_google, train_flickr; val, which people checked. JSON: label, of val the same as "
            "clean_label.",
            options=(
                Option("source", "Where the images are from.", default="both", choices=("google", "flickr", "both")),
                Option("classes", "The first N; without it all.", metavar="N", counts=True),
                Option("splits", "Without it all; may be given again.", choices=("train", "val"), many=True),
            ),
        ),
        Layout(
            "cifarn",
            "CIFAR-10N and CIFAR-100N (Wei et al., ICLR 2022), with all the labels that people gave",
            "rayclean.convert.cifarn:cifarn",
            details="ROOT holds CIFAR's Python version unpacked (cifar-10-batches-py/ or cifar-100-python/), and "
            "CIFAR-10_human.pt or CIFAR-100_human.pt. Nothing that these files name is called. The source has pixels, "
            "not files: the images become PNG.\n\n"
            "Splits: cifar10n-train and cifar10n-test, or cifar100n-. The key is the position in torchvision's order. "
            "JSON: label (worse_label or noisy_label; of test images the true one), clean_label, and all others.",
            options=(
                Option("set", "Which of the two.", default="cifar10", choices=("cifar10", "cifar100")),
                Option("labels", "The file of human labels; without it ROOT/CIFAR-10_human.pt.", metavar="FILE"),
            ),
        ),
    ),
)
