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
    """A message of about 7 KB: one employer, one employee, one report."""
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
    """Seconds on the clock, seconds of the processor, peak memory in MiB."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command[0]} refused the data")
    elapsed = time.monotonic() - start
    return elapsed, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def compare(what, files):
    size = sum(os.path.getsize(file) for file in files) / 1e6
    theirs = ["xmllint", "--noout", "--schema", str(SCHEMA), *map(str, files)]
    ours = [OURS, *map(str, files)]
    # In turns, so that another load on the machine hits both.
    rounds = [(run(ours), run(theirs)) for _ in range(5)]
    figures = []
    for side, name in enumerate(("ours", "xmllint")):
        clock, cpu, memory = (statistics.median(each[side][at] for each in rounds) for at in range(3))
        figures.append((clock, cpu))
        print(f"{what:24} {name:8} {clock:7.3f} s {size / clock:7.1f} MB/s, {cpu:7.3f} s of processor, {memory:7.1f} MiB")
    clock, cpu = (figures[1][at] / figures[0][at] for at in range(2))
    # On a machine that does other work too, the second is the steadier one.
    print(f"{what:24} ratio    {clock:7.2f} on the clock, {cpu:.2f} of processor time")


names, large = make()
compare(f"{len(names)} small messages", names)
compare("one file of 200 MB", [large])
