"""What may become of a job, as a small model of its own: what it has been told is compared with every later answer.

A job's life only moves forward: QUEUED(0) < RUNNING(1) < CANCELLING(1) < QUEUED(1) < RUNNING(2) < ..., where the number is the
attempt, and an end comes after everything of its attempt.
"""

import dataclasses
import threading

ENDS = ("SUCCEEDED", "FAILED", "CANCELLED")
ORDER = {"RUNNING": 1, "CANCELLING": 2, "QUEUED": 3, **dict.fromkeys(ENDS, 5)}


class Violation(AssertionError):
    pass


def require(true, *what):
    if not true:
        raise Violation(*what)


@dataclasses.dataclass(frozen=True)
class Seen:
    """Of an answer."""
    state: str
    attempt: int
    lost: int
    reason: str

    @staticmethod
    def of(job):
        return Seen(job["state"].removeprefix("JOB_STATE_"), job.get("attempt", 0), len(job.get("lostAttempts", [])),
                    job.get("error", {}).get("reason", ""))

    @property
    def place(self):
        return self.attempt * 10 + ORDER[self.state]

    @property
    def ended(self):
        return self.state in ENDS

    def check(self, most_attempts):
        """By itself."""
        wanted = {"QUEUED": (self.attempt,), "RUNNING": (self.attempt - 1,), "CANCELLING": (self.attempt - 1,),
                  "SUCCEEDED": (self.attempt - 1,)}.get(self.state, (self.attempt - 1, self.attempt))
        require(0 <= self.attempt <= most_attempts, "attempts", self)
        require(max(0, self.lost) in wanted or (self.attempt == 0 and self.lost == 0), "lost attempts", self)
        require(self.attempt > 0 or self.state in ("QUEUED", "CANCELLED"), "ended without an attempt", self)
        require(self.state == "FAILED" or not self.reason, "an error without a failure", self)
        if self.reason == "WORKER_GROUP_LOST":
            require(self.attempt == most_attempts == self.lost, "given up too soon", self)

    def check_after(self, before):
        require(self.place >= before.place, "went back", before, self)
        if before.ended:
            require(self == before, "changed after its end", before, self)
        if before.state == "CANCELLING":
            require(self.attempt == before.attempt, "ran again after it was cancelled", before, self)


class Jobs:
    """All jobs of a run. Thread-safe. A call that looks at jobs is begun with `now()`, which is what its answer is compared with."""

    def __init__(self, most_attempts):
        self.most_attempts, self.lock = most_attempts, threading.Lock()
        self.seen = {}      # name -> Seen, of jobs that were acknowledged or listed.
        self.cancelled = {}  # name -> attempt at which a cancel was acknowledged.
        self.deleting = set()  # Somebody has asked for it.
        self.deleted = set()   # And was told that it is done.

    def now(self):
        with self.lock:
            return dict(self.seen), set(self.deleting), set(self.deleted)

    def names(self):
        with self.lock:
            return [name for name in self.seen if name not in self.deleting]

    def saw(self, job, now):
        """An answer that holds the job. `now` is from before the call."""
        name, seen = job["name"], Seen.of(job)
        before, _, deleted = now
        require(name not in deleted, "is there again", name)
        seen.check(self.most_attempts)
        if name in before:
            seen.check_after(before[name])
        with self.lock:
            if name not in self.seen or seen.place > self.seen[name].place:
                self.seen[name] = seen
            if name in self.cancelled:
                require(seen.attempt <= self.cancelled[name], "ran again after it was cancelled", name, seen)
            # Two answers that tell of the same moment must say the same.
            require(seen.place != self.seen[name].place or seen == self.seen[name], "two truths", name, seen, self.seen[name])
        return seen

    def saw_list(self, jobs, now):
        found = [job["name"] for job in jobs]
        require(len(found) == len(set(found)), "listed twice")
        for job in jobs:
            self.saw(job, now)
        missing = set(now[0]) - now[1] - set(found)
        with self.lock:
            missing -= self.deleting  # Asked for while the call was under way.
        require(not missing, "acknowledged jobs are lost", sorted(missing))

    def missed(self, name, now):
        """The answer was that there is no such job."""
        with self.lock:
            require(name not in now[0] or name in self.deleting, "an acknowledged job is lost", name)

    def cancel_acknowledged(self, job, now):
        seen = self.saw(job, now)
        require(seen.state in ("CANCELLING", "CANCELLED"), "cancelled, but", job["name"], seen)
        with self.lock:
            self.cancelled[job["name"]] = min(seen.attempt, self.cancelled.get(job["name"], seen.attempt))

    def delete_asked(self, name):
        """False when somebody else has asked."""
        with self.lock:
            if name in self.deleting:
                return False
            self.deleting.add(name)
            return True

    def delete_refused(self, name):
        with self.lock:
            self.deleting.discard(name)

    def delete_acknowledged(self, name):
        with self.lock:
            self.deleted.add(name)


def check_history(name, lines, most_attempts):
    """The coordinator's own lines in a job's log, each with the attempt it is about: a way through the state machine."""
    state, attempt = None, 0
    for line in lines:
        text, about = line["text"], line["attempt"]
        if text.startswith("queued with priority"):
            require(state is None, name, "queued twice", text)
            state = "QUEUED"
        elif text.startswith("attempt "):
            require(state == "QUEUED" and about == attempt + 1 <= most_attempts, name, state, attempt, text)
            state, attempt = "RUNNING", about
        elif text.startswith("worker group lost"):
            require(state == "RUNNING" and about == attempt, name, state, attempt, text)
            state = "QUEUED"
        elif text == "cancelling":
            require(state == "RUNNING" and about == attempt, name, state, attempt, text)
            state = "CANCELLING"
        elif text == "succeeded" or text.startswith("failed: "):
            require(state in ("RUNNING", "CANCELLING") and about == attempt, name, state, attempt, text)
            state = "SUCCEEDED" if text == "succeeded" else "FAILED"
        elif text == "cancelled":
            require(state in ("QUEUED", "CANCELLING"), name, state, attempt, text)
            state = "CANCELLED"
        else:
            require(False, name, "an unknown line", text)
    return state
