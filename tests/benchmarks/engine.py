"""The program `engine` (engine.cc) as a child that stays loaded between commands."""

import json
import os
import subprocess
from pathlib import Path


class EngineError(Exception):
    pass


class Engine:
    def __init__(self, bin_, model, rows, dtype="float32", ranks=1, threads=1, **options):
        """`rows` is a file of token ids; further options are those of the program. `loaded` says how long loading took."""
        self.ranks = ranks
        command = [str(bin_ / "engine"), "--model", str(model), "--token-ids", str(rows), "--dtype", dtype]
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        if ranks > 1:
            root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
            command = ["mpirun", *root, "--oversubscribe", "--bind-to", "none", "-n", str(ranks), *command]
        # As `bearing run` starts its workers.
        env = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.loaded = self._answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, do, **arguments):
        """The engine's answer, for one rank with the processor time that the work took."""
        before = self._cpu
        self.process.stdin.write(json.dumps({"do": do} | arguments) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        return answer if self.ranks > 1 else answer | {"cpu_seconds": self._cpu - before}

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise EngineError(f"the engine ended with {self.process.wait()}: {' '.join(map(str, self.process.args))}")
        answer = json.loads(line)
        self._cpu = answer["process_cpu_seconds"]
        return answer
