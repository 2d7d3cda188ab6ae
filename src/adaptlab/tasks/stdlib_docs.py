"""stdlib-docs: what is this about? Docstrings of the running Python's own standard library, sorted into areas.

Real text that every Python carries, so that a comparison needs no download. The source files are read, never imported,
and the same Python gives the same rows. The texts are Python's (PSF licence) and stay where they are.
"""

from __future__ import annotations

import ast
import math
import platform
import re
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from adaptlab.config import Prompt, TaskConfig
from adaptlab.errors import DataError
from adaptlab.tasks._base import DataAccess, Example, Task, TaskData
from adaptlab.tasks._hub import refuse_file_options
from adaptlab.tasks._splits import Published, assemble

#: The classes, and the top-level modules of each. A Python that lacks one of them has fewer rows. What distributions
#: package apart (tkinter, idlelib, test) or what fits nowhere is left out, so that most Pythons of a version agree.
AREAS = {
    "concurrency": """_threading_local asynchat asyncio asyncore concurrent contextvars multiprocessing queue sched
        selectors signal subprocess threading""",
    "data structures": """_collections_abc _py_abc _weakrefset abc bisect collections contextlib copy copyreg
        dataclasses enum functools graphlib heapq operator reprlib types typing weakref""",
    "debugging and testing": """bdb cProfile doctest pdb profile pstats timeit trace traceback tracemalloc unittest
        warnings""",
    "email": "email mailbox mailcap mimetypes quopri uu",
    "files": """_bootsubprocess _compression _pyio bz2 compression filecmp fileinput fnmatch genericpath glob gzip io
        linecache lzma ntpath os pathlib posixpath shutil stat tarfile tempfile zipapp zipfile""",
    "interface": """_osx_support _pyrepl argparse cmd code codeop colorsys curses getopt getpass logging optparse
        platform pty rlcompleter shlex turtle tty""",
    "internet": """cgi cgitb ftplib hmac http imaplib ipaddress netrc nntplib nturl2path poplib secrets smtpd smtplib
        socket socketserver ssl telnetlib urllib uuid webbrowser wsgiref xmlrpc""",
    "language": """annotationlib ast compileall dis imp importlib inspect keyword modulefinder opcode pkgutil
        py_compile pyclbr pydoc runpy site symtable sysconfig tabnanny token tokenize venv zipimport""",
    "numbers and time": """_pydatetime _pydecimal _strptime calendar datetime decimal fractions numbers random
        statistics zoneinfo""",
    "text and formats": """_markupbase aifc base64 chunk codecs configparser csv dbm difflib encodings gettext html
        json locale pickle pickletools plistlib pprint re shelve sqlite3 string stringprep sunau textwrap tomllib wave
        xdrlib xml""",
}
NOT_READ = {"test", "tests", "idlelib", "__pycache__"}

#: A text has at least this many words besides its module's own name, or it says too little.
FEWEST_WORDS = 4
MOST_WORDS = 60
#: Two texts whose sets of words overlap by this share (Jaccard) are near-duplicates.
NEAR = 0.7


@dataclass(frozen=True, slots=True)
class _Doc:
    place: str  # file and line, e.g. "json/decoder.py:254"
    area: str
    text: str
    words: frozenset[str]


class StdlibDocs(Task):
    """One docstring's first paragraph a row; near-duplicates are removed, so none can be on both sides of a split."""

    name = "stdlib-docs"
    summary = "docstrings of the running Python's standard library, 10 areas, about 4,000 training rows; no download"
    version = 1
    kind = "classification"
    metrics = ("accuracy", "macro_f1")
    prompts = (Prompt(name="area", template="{text}\nThis part of Python's library is about"),)

    def load(self, config: TaskConfig, access: DataAccess) -> TaskData:
        """Build the rows from this Python's files in about a second.

        Raises:
            DataError: this Python came without its source files.
        """
        refuse_file_options(self.name, config)
        docs = usable_docs(Path(sysconfig.get_paths()["stdlib"]))
        labels = tuple(sorted(AREAS))
        rows = [Example(doc.place, (doc.text,), labels.index(doc.area)) for doc in docs]
        return assemble(
            Published(train=rows),
            kind="classification",
            labels=labels,
            metrics=self.metrics,
            config=config,
            columns=("text",),
            prompts=self.prompts,
            source="Python standard library",
            revision=platform.python_version(),
        )


@cache
def usable_docs(library: Path) -> tuple[_Doc, ...]:
    """The rows in ``library``, read once a process: the files of a running Python do not change."""
    return tuple(distinct(list(_read(library))))


def _read(library: Path) -> Iterator[_Doc]:
    """Every usable docstring in ``library``, in a fixed order.

    Raises:
        DataError: the folder has no source files.
    """
    areas = {module: area for area, modules in AREAS.items() for module in modules.split()}
    read = 0
    for module in sorted(areas):
        files = [library / f"{module}.py"] if (library / f"{module}.py").is_file() else (library / module).rglob("*.py")
        for file in sorted(files):
            where = file.relative_to(library)
            if NOT_READ.isdisjoint(where.parts):
                read += 1
                names = set(_words(" ".join(where.with_suffix("").parts)))
                for line, docstring in _docstrings(file):
                    text = " ".join(re.split(r"\n\s*\n", docstring)[0].split()[:MOST_WORDS])
                    words = _words(text)
                    if sum(word not in names for word in words) >= FEWEST_WORDS:
                        yield _Doc(f"{where.as_posix()}:{line}", areas[module], text, frozenset(words))
    if not read:
        raise DataError(
            "stdlib-docs is made from the source files of Python's standard library, and this Python came without "
            "them: use another task, or a Python that has them."
        )


def _docstrings(file: Path) -> Iterator[tuple[int, str]]:
    """Line and docstring of the module (line 0), its classes and its functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some old modules have invalid escapes, which compiling warns about
        tree = ast.parse(file.read_bytes(), file.name)
    nodes: list[ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef] = [tree]
    while nodes:
        node = nodes.pop()
        docstring = ast.get_docstring(node)
        if docstring:
            yield (0 if isinstance(node, ast.Module) else node.lineno), docstring
        inner = [
            child for child in node.body if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        nodes.extend(reversed(inner))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def distinct(docs: Sequence[_Doc], near: float = NEAR) -> list[_Doc]:
    """The first of each set of near-duplicates; none where they come from different areas, as no answer is right then.

    Exact: with words ordered from rare to common, two sets that overlap by ``near`` share one of the first
    ``n - ceil(near * n) + 1`` words of each (prefix filtering, Bayardo et al. 2007).
    """
    frequency = Counter(word for doc in docs for word in doc.words)
    kept: list[_Doc] = []
    ambiguous: set[int] = set()
    with_word: defaultdict[str, list[int]] = defaultdict(list)
    for doc in docs:
        rarest = sorted(doc.words, key=lambda word: (frequency[word], word))
        prefix = rarest[: len(rarest) - math.ceil(near * len(rarest)) + 1]
        alike = [
            place
            for place in {place for word in prefix for place in with_word[word]}
            if len(doc.words & kept[place].words) >= near * len(doc.words | kept[place].words)
        ]
        ambiguous.update(place for place in alike if kept[place].area != doc.area)
        if not alike:
            for word in prefix:
                with_word[word].append(len(kept))
            kept.append(doc)
    return [doc for place, doc in enumerate(kept) if place not in ambiguous]


plugin = StdlibDocs()
