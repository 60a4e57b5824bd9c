"""Makes the data and takes the times for validate.sh."""
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS, FOLDER = sys.argv[1], pathlib.Path(sys.argv[2])
SCHEMA = ROOT / "schemas/2017/Verzuimmeldingen.xsd"
SAMPLE = (ROOT / "tests/samples/valid/Verzuimmeldingen.full.xml").read_text()
SMALL = 5000
LARGE_BYTES = 200_000_000


def cut(text, tag):
    """What is before, in and behind the first element with a tag."""
    start, end = text.index(f"<{tag}>"), text.rindex(f"</{tag}>") + len(tag) + 3
    return text[:start], text[start:end], text[end:]


def small(at):
    """A message of about 4 KB: one employer, one employee, one report."""
    before, employer, behind = cut(SAMPLE, "Wrkgvr")
    _, employee, _ = cut(employer, "Wrknmr")
    first = employee[: employee.index("</Wrknmr>") + 9]
    head = employer[: employer.index("<StrAdrNl>")]
    text = before + head + first + "</Wrkgvr>" + behind
    return text.replace("REF-0001", f"REF-{at:06}")


def make():
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = [FOLDER / f"{at}.xml" for at in range(SMALL)]
    for at, name in enumerate(names):
        if not name.exists():
            name.write_text(small(at))
    large = FOLDER / "large.xml"
    if not large.exists():
        text = small(0)
        before, employee, behind = cut(text, "Wrknmr")
        with large.open("w") as out:
            out.write(before)
            for _ in range(LARGE_BYTES // len(employee.encode()) + 1):
                out.write(employee)
            out.write(behind)
    return names, large


def run(command):
    """Seconds and peak memory in MiB."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} refused the data")
    return time.monotonic() - start, usage.ru_maxrss / 1024


def compare(what, files):
    size = sum(os.path.getsize(file) for file in files) / 1e6
    theirs = ["xmllint", "--noout", "--schema", str(SCHEMA), *map(str, files)]
    ours = [OURS, *map(str, files)]
    # In turns, so that another load on the machine hits both.
    rounds = [(run(ours), run(theirs)) for _ in range(5)]
    figures = []
    for side, name in enumerate(("ours", "xmllint")):
        seconds = statistics.median(each[side][0] for each in rounds)
        memory = statistics.median(each[side][1] for each in rounds)
        figures.append(seconds)
        print(f"{what:28} {name:8} {seconds:7.3f} s {size / seconds:7.1f} MB/s {memory:8.1f} MiB")
    print(f"{what:28} ratio    {figures[1] / figures[0]:7.2f}")


names, large = make()
compare(f"{len(names)} small messages", names)
compare("one file of 200 MB", [large])
