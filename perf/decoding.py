"""How fast a data set is decoded, in how much memory, and how soon it is open again.

    python perf/decoding.py DATA

Each figure comes from a process of its own: the first decodes all images into an empty cache, the
second finds them there. Memory is the most that the decoding process held at a time (resident set).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time

OPEN = """
import json, resource, sys, time
start = time.perf_counter()
from robustbench_tin.data import open_dataset
imported = time.perf_counter()
dataset = open_dataset(sys.argv[1], cache_dir=sys.argv[2], workers=int(sys.argv[3]) or None)
splits = [split for split in (dataset.train, dataset.val, dataset.test) if split is not None]
unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, kilobytes elsewhere
print(json.dumps({
    "images": sum(map(len, splits)),
    "import_s": imported - start,
    "open_s": time.perf_counter() - imported,
    "rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    "fingerprint": dataset.fingerprint,
}))
"""


def measure_open(data: str, cache: str, workers: int) -> dict[str, float]:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", OPEN, data, cache, str(workers)], stdout=subprocess.PIPE, check=True, text=True
    )
    return {**json.loads(done.stdout), "process_s": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="an unpacked tiny-imagenet-200, its zip file, or an image folder")
    parser.add_argument("--workers", type=int, default=0, help="images decoded at a time (one a core)")
    parser.add_argument("--cache", help="directory for the temporary cache (default: the system's)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.cache) as cache:
        first = measure_open(args.data, cache, args.workers)
        second = measure_open(args.data, cache, args.workers)
    print(f"decoded       {first['images']:,} images in {first['open_s']:.1f} s")
    print(f"speed         {first['images'] / first['open_s']:,.0f} images/s")
    print(f"peak memory   {first['rss_gib']:.2f} GiB resident")
    print(f"second start  {second['open_s']:.2f} s ({second['process_s']:.2f} s with Python's own start)")
    print(f"fingerprint   {first['fingerprint']}, {second['fingerprint']} at the second start")


if __name__ == "__main__":
    main()
