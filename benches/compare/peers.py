"""hnswlib and faiss behind the requests of src/worker.rs: one line of JSON in, one line of JSON out.

Run by the driver: peers.py ENGINE THREADS CPUS. Every request is timed with the process CPU clock, reading vectors left out.
"""

import json
import os
import sys
import time

import numpy as np

DIM, LINKS, BUILD_EF, BLOCK = 512, 16, 200, 10_000
TRAIN = 60_000  # rows that the scalar quantiser of faiss sees


class Hnswlib:
    def __init__(self, threads):
        import hnswlib

        self.threads, self.index = threads, hnswlib.Index("ip", DIM)

    def create(self, path, capacity, sample):
        self.index.init_index(capacity, M=LINKS, ef_construction=BUILD_EF, allow_replace_deleted=True)

    def open(self, path, mapped):
        self.index.load_index(path, allow_replace_deleted=True)

    def add(self, keys, rows):
        removed = getattr(self, "removed", 0)
        replace = removed >= len(keys)
        if replace:
            self.removed = removed - len(keys)
        elif self.index.get_current_count() + len(keys) > self.index.get_max_elements():
            self.index.resize_index(self.index.get_current_count() + len(keys))
        self.index.add_items(rows, keys, num_threads=self.threads, replace_deleted=replace)

    def remove(self, keys):
        for key in keys:
            self.index.mark_deleted(key)
        self.removed = getattr(self, "removed", 0) + len(keys)

    def save(self, path):
        self.index.save_index(path)

    def search(self, rows, k, ef, refine, allowed):
        if allowed is not None:
            raise NotImplementedError("its filter is a Python function called for every vector met: not a fair figure")
        self.index.set_ef(ef)
        return self.index.knn_query(rows, k, num_threads=self.threads)[0]


class Faiss:
    """HNSW over f32 rows, over 8-bit codes with exact rows for refinement, or a flat scan."""

    def __init__(self, threads, kind):
        import faiss

        self.faiss, self.kind = faiss, kind
        faiss.omp_set_num_threads(threads)

    def create(self, path, capacity, sample):
        faiss = self.faiss
        if self.kind == "flat":
            self.index = faiss.IndexFlatIP(DIM)
            return
        if self.kind == "hnsw":
            self.graph = self.index = faiss.IndexHNSWFlat(DIM, LINKS, faiss.METRIC_INNER_PRODUCT)
        else:
            self.graph = faiss.IndexHNSWSQ(DIM, faiss.ScalarQuantizer.QT_8bit, LINKS, faiss.METRIC_INNER_PRODUCT)
            self.graph.train(sample())
            self.index = faiss.IndexRefineFlat(self.graph)
        self.graph.hnsw.efConstruction = BUILD_EF

    def open(self, path, mapped):
        self.index = self.faiss.read_index(path, self.faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        self.graph = self.index.base_index if self.kind == "sq8" else self.index

    def add(self, keys, rows):
        self.index.add(rows)  # its HNSW knows no keys: a row's number is its place

    def remove(self, keys):
        raise NotImplementedError("HNSW cannot remove")

    def save(self, path):
        self.faiss.write_index(self.index, path)

    def search(self, rows, k, ef, refine, allowed):
        faiss = self.faiss
        selector = None if allowed is None else faiss.IDSelectorBitmap(allowed)
        if self.kind == "flat":
            return self.index.search(rows, k, params=faiss.SearchParameters(sel=selector) if selector else None)[1]
        walk = faiss.SearchParametersHNSW(efSearch=max(ef, refine), sel=selector)
        if refine == 0:
            return self.graph.search(rows, k, params=walk)[1]
        refined = faiss.IndexRefineSearchParameters(k_factor=refine / k, base_index_params=walk)
        return self.index.search(rows, k, params=refined)[1]


def engine(name, threads):
    return Hnswlib(threads) if name == "hnswlib" else Faiss(threads, name.removeprefix("faiss-"))


class Stopwatch:
    cpu = wall = 0.0

    def time(self, work, *arguments):
        wall, cpu = time.perf_counter(), time.process_time()
        result = work(*arguments)
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall
        return result


def memory():
    """Resident MB: anonymous, mapped from files."""
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return [int(fields[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "RssFile")]


def busiest():
    """CPU seconds of the busiest thread."""
    times = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/stat") as stat:
            times.append(sum(map(int, stat.read().rsplit(")", 1)[1].split()[11:13])))
    return max(times) / os.sysconf("SC_CLK_TCK")


def rows_of(path, at):
    table = np.memmap(path, dtype="<f4", mode="r").reshape(-1, DIM)
    return np.ascontiguousarray(table[at])


def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


class Session:
    """One engine and the file that it is kept in."""

    def __init__(self, name, threads):
        self.engine = engine(name, threads)

    def idle(self, watch, request):
        pass

    def create(self, watch, request):
        os.makedirs(request["dir"], exist_ok=True)
        self.path, self.capacity, self.created = os.path.join(request["dir"], "index"), request["capacity"], False

    def open(self, watch, request):
        self.path, self.created = os.path.join(request["dir"], "index"), True
        watch.time(self.engine.open, self.path, request["mapped"])

    def add(self, watch, request):
        at = np.array(request["at"])
        if not self.created:
            sample = lambda: rows_of(request["rows"], at[:: max(1, len(at) // TRAIN)])
            watch.time(self.engine.create, self.path, self.capacity, sample)
            self.created = True
        for start in range(0, len(at), BLOCK):
            part = at[start : start + BLOCK]
            watch.time(self.engine.add, part + request["offset"], rows_of(request["rows"], part))

    def remove(self, watch, request):
        watch.time(self.engine.remove, request["keys"])

    def commit(self, watch, request):
        def commit():
            self.engine.save(self.path + ".new")
            sync(self.path + ".new")
            os.rename(self.path + ".new", self.path)
            sync(os.path.dirname(self.path))

        watch.time(commit)

    def compact(self, watch, request):
        raise NotImplementedError("nothing to compact")

    def query(self, watch, request):
        rows = rows_of(request["rows"], request["at"])
        allowed = np.fromfile(request["allowed"], dtype=np.uint8) if request["allowed"] else None
        found = watch.time(self.engine.search, rows, request["k"], request["ef"], request["refine"], allowed)
        # faiss fills up with -1 where it finds too few.
        return [[int(key) for key in keys if key >= 0] for keys in found]


def main():
    name, threads, cpus = sys.argv[1:]
    os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    session = Session(name, int(threads))
    for line in sys.stdin:
        request, watch, found, error = json.loads(line), Stopwatch(), None, None
        before = busiest()
        try:
            found = getattr(session, request["op"])(watch, request)
        except Exception as e:  # the driver decides what an engine that cannot means
            error = str(e) or type(e).__name__
        anonymous, mapped = memory()
        answer = dict(cpu=watch.cpu, wall=watch.wall, busiest=busiest() - before)
        answer.update(anonymous=anonymous, mapped=mapped, found=found or [], error=error)
        print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
