"""A strict reader of Prometheus's text exposition format, version 0.0.4."""
import math
import re

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class Malformed(AssertionError):
    pass


def _need(condition, line, what):
    if not condition:
        raise Malformed(f"{what}: {line!r}")


def _labels(line, at):
    """The labels behind the brace at `at`; returns them and the place behind the closing brace."""
    labels = {}
    at += 1
    while line[at] != "}":
        name = LABEL.match(line, at)
        _need(name and line[name.end():name.end() + 2] == '="', line, "no label")
        at, value = name.end() + 2, []
        while line[at] != '"':
            if line[at] == "\\":
                _need(line[at + 1] in '\\"n', line, "unknown escape")
                value.append("\n" if line[at + 1] == "n" else line[at + 1])
                at += 2
            else:
                value.append(line[at])
                at += 1
        _need(name.group() not in labels, line, "a label twice")
        labels[name.group()] = "".join(value)
        at += 1
        _need(line[at] in ",}", line, "no end of a label")
        at += line[at] == ","
    return labels, at + 1


def _sample(line):
    name = NAME.match(line)
    _need(name, line, "no name")
    at, labels = name.end(), {}
    if line[at] == "{":
        labels, at = _labels(line, at)
    words = line[at:].split(" ")
    _need(len(words) == 2 and words[0] == "", line, "not one value behind one space")
    return name.group(), labels, float(words[1].replace("+Inf", "inf"))


def _check_histogram(name, samples):
    """Buckets in order and cumulative, +Inf there and equal to the count, a sum."""
    groups = {}
    for sample, labels, value in samples:
        rest = tuple(sorted((k, v) for k, v in labels.items() if k != "le"))
        group = groups.setdefault(rest, {"buckets": []})
        if sample == f"{name}_bucket":
            group["buckets"].append((float(labels["le"].replace("+Inf", "inf")), value))
        else:
            _need(sample in (f"{name}_sum", f"{name}_count") and sample not in group, sample, "not of this histogram")
            group[sample] = value
    for rest, group in groups.items():
        bounds = [bound for bound, _ in group["buckets"]]
        counts = [count for _, count in group["buckets"]]
        _need(bounds == sorted(set(bounds)) and bounds[-1] == math.inf, rest, "bounds of buckets")
        _need(counts == sorted(counts), rest, "buckets are not cumulative")
        _need(counts[-1] == group[f"{name}_count"] and group[f"{name}_sum"] >= 0, rest, "count and sum")
        _need(counts[-1] > 0 or group[f"{name}_sum"] == 0, rest, "a sum of nothing")


def parse(text):
    """{family: (type, help, [(name, labels, value)])}; raises Malformed."""
    _need(text.endswith("\n") and "\r" not in text, text[-20:], "line ends")
    families, current, seen = {}, None, set()
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, help_text = line[7:].split(" ", 1)
            _need(NAME.fullmatch(name) and name not in families and help_text, line, "HELP")
            _need(not re.search(r"\\(?![\\n])", help_text), line, "escape")
            families[name] = [None, help_text, []]
            current = name
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            _need(name == current and families[name][0] is None and not families[name][2], line, "TYPE")
            _need(kind in ("counter", "gauge", "histogram"), line, "type")
            families[name][0] = kind
        else:
            name, labels, value = _sample(line)
            kind = families[current][0]
            base = re.sub(r"_(bucket|sum|count)$", "", name) if kind == "histogram" else name
            _need(base == current and kind, line, "a sample outside of its family")
            _need(kind != "counter" or (value >= 0 and name.endswith("_total")), line, "counter")
            key = (name, tuple(sorted(labels.items())))
            _need(key not in seen, line, "a sample twice")
            seen.add(key)
            families[current][2].append((name, labels, value))
    for name, (kind, _, samples) in families.items():
        if kind == "histogram":
            _check_histogram(name, samples)
    return {name: tuple(family) for name, family in families.items()}


def value(families, name, **labels):
    """The sum of the samples that have these labels, or None."""
    family = families[re.sub(r"_(bucket|sum|count)$", "", name)] if name not in families else families[name]
    found = [v for n, have, v in family[2] if n == name and labels.items() <= have.items()]
    return sum(found) if found else None
