"""Requests as stock commands really send them, and the answers they need. Run with FLUX_URI naming rank 0 of an
instance of at least two brokers and FLUX_URI_1 naming rank 1. Every case here was once wrong."""

import base64
import errno
import hashlib
import json
import os
import tempfile
import unittest

from wire_case import Case
from wire_client import REQUEST, UPSTREAM, Message, RpcError


class StockCase(Case):
    def stream(self, topic, payload):
        """Returns all answers of a stream and the error number at its end."""
        tag, answers = self.flux.stream(topic, payload), []
        while True:
            try:
                answers.append(self.flux.response(tag))
            except RpcError as error:
                return answers, error.errnum

    def submit(self, command, tasks=1, nodes=0, urgency=16, options=None, exclusive=False):
        slot = {"type": "slot", "count": tasks, "label": "task", "with": [{"type": "core", "count": 1}]}
        if nodes:
            slot["count"] = tasks // nodes
        node = {"type": "node", "count": nodes, "exclusive": exclusive, "with": [slot]}
        resources = [node] if nodes else [slot]
        jobspec = {"version": 1, "resources": resources,
                   "tasks": [{"command": command, "slot": "task", "count": {"per_slot": 1}}],
                   "attributes": {"system": {"duration": 0, "cwd": "/",
                                             "environment": {"PATH": "/usr/bin:/bin"},
                                             "shell": {"options": options or {}}}}}
        header = b"version\0i1\0userid\0i%d\0mechanism\0snone\0" % os.getuid()
        signed = b".".join((base64.b64encode(header), base64.b64encode(json.dumps(jobspec).encode()), b"none"))
        return self.flux.call("job-ingest.submit", {"J": signed.decode(), "urgency": urgency, "flags": 0})["id"]

    def eventlog(self, jobid, path="eventlog"):
        answers, end = self.stream("job-info.eventlog-watch", {"id": jobid, "path": path, "flags": 0})
        return [json.loads(answer.json()["event"]) for answer in answers], end

    def finish(self, jobid):
        """Returns the contexts of the exceptions of a job, its wait status, and its output in one string."""
        events, end = self.eventlog(jobid)
        self.assertEqual(end, errno.ENODATA)
        exceptions = [event["context"] for event in events if event["name"] == "exception"]
        status = [event["context"]["status"] for event in events if event["name"] == "finish"]
        output, _ = self.eventlog(jobid, "guest.output")
        data = [event["context"] for event in output if event["name"] in ("data", "log")]
        return exceptions, status[0], "".join(d.get("data", "") + d.get("message", "") for d in data)


class Commands(StockCase):
    def test_log_levels(self):
        """flux logger, flux dmesg: PRI is severity * 8 + facility."""
        self.flux.request("log.append", raw=b"<27>1 2026-01-01T00:00:00.000000Z 0 stock-test 1 - - an error")
        entries = [answer.text() for answer in self.stream("log.dmesg", {"follow": False})[0]]
        self.assertTrue(any(entry.startswith("<27>1 ") and entry.endswith("an error") for entry in entries))
        state = [entry for entry in entries if "quorum-full: quorum->run" in entry]
        self.assertEqual([entry.partition(">")[0] for entry in state], ["<48"])

    def test_debug_flags(self):
        """flux module debug."""
        def debug(op, flags):
            return self.flux.call("kvs.debug", {"op": op, "flags": flags})["flags"]
        self.assertEqual(debug("setbit", 0), 0)
        self.assertEqual(debug("set", 6), 6)
        self.assertEqual(debug("setbit", 1), 7)
        self.assertEqual(debug("clrbit", 2), 5)
        self.assertEqual(debug("setbit", -(1 << 31)), (1 << 31) | 5)
        self.assertEqual(debug("clr", 0), 0)
        self.refused(errno.EPROTO, "kvs.debug", {"op": "nosuch", "flags": 0})
        self.refused(errno.EPROTO, "kvs.debug", {"op": "set", "flags": 1 << 40})

    def test_nothing_is_upstream_of_rank_0(self):
        """flux ping upstream."""
        for topic in ("broker.ping", "nosuch.ping"):
            self.flux.tags.add(1)
            self.flux.send(Message(REQUEST, topic, b'{"seq":0}\0', [], UPSTREAM, aux1=0, aux2=1))
            with self.assertRaises(RpcError) as caught:
                self.flux.response(1)
            self.assertEqual(caught.exception.errnum, errno.EHOSTUNREACH)

    def test_monitor_of_a_state_that_is_past(self):
        run, quorum = 5, 4
        answers, end = self.stream("state-machine.monitor", {"final": run})
        self.assertEqual(([answer.json() for answer in answers], end), ([{"state": run}], errno.ENODATA))
        self.assertEqual(self.stream("state-machine.monitor", {"final": quorum}), ([], errno.ENODATA))

    def test_module_trace_shows_both_ways(self):
        """flux module trace."""
        tracer = self.client()
        tag = tracer.stream("module.trace", {"typemask": 7, "topic_glob": "kvs.getroot", "names": ["kvs"],
                                             "full": True})
        tracer.rpc("broker.ping", {})
        root = self.flux.call("kvs.getroot", {"namespace": "primary"})
        request, answer = tracer.response(tag).json(), tracer.response(tag).json()
        self.assertEqual((request["prefix"], request["type"], request["name"]), ("rx", 1, "kvs"))
        self.assertEqual((answer["prefix"], answer["type"], answer["errnum"], answer["payload"]), ("tx", 2, 0, root))
        self.refused(errno.ENOTSUP, "kvs.getroot", {"namespace": "nosuch"})
        tracer.response(tag)
        self.assertEqual(tracer.response(tag).json()["errnum"], errno.ENOTSUP)

    def test_start_log(self):
        """flux startlog reads only what begins with a version."""
        value = self.flux.call("kvs.lookup", {"key": "admin.eventlog", "namespace": "primary", "flags": 0})["val"]
        event = json.loads(base64.b64decode(value["data"]).splitlines()[0])
        self.assertEqual((event["name"], event["context"]["version"]), ("start", 1))
        self.assertIn("core_version", event["context"])

    def test_processes_are_named_by_their_program(self):
        """flux sproc ps."""
        cmd = {"cwd": "/", "cmdline": ["sleep", "100"], "env": {"PATH": "/usr/bin:/bin"}, "opts": {}, "channels": []}
        pid = self.flux.call("rexec.exec", {"cmd": cmd, "flags": 0})["pid"]
        procs = self.flux.call("rexec.list")["procs"]
        self.assertEqual([proc["cmd"] for proc in procs if proc["pid"] == pid], ["sleep"])
        self.flux.rpc("rexec.kill", {"pid": pid, "signum": 15})
        tag = self.flux.stream("rexec.exec", {"cmd": {**cmd, "cmdline": ["/no/such/program"]}, "flags": 3})
        with self.assertRaises(RpcError) as caught:
            self.flux.response(tag)
        self.assertEqual(caught.exception.text, "error launching process: No such file or directory")

    def test_undrain_modes(self):
        """flux resource undrain --force, --update."""
        for mode in ("overwrite", "update"):
            self.flux.rpc("resource.drain", {"targets": "1", "reason": "test"}, 0)
            self.flux.rpc("resource.undrain", {"targets": "0-1", "mode": mode}, 0)
        text = self.refused(errno.EINVAL, "resource.undrain", {"targets": "1", "mode": "nosuch"}, 0)
        self.assertEqual(text, "invalid undrain mode 'nosuch' specified")
        text = self.refused(errno.EINVAL, "resource.drain", {"targets": "nosuchhost"}, 0)
        self.assertEqual(text, "invalid targets: invalid hosts: nosuchhost")


class Kvs(StockCase):
    def commit(self, key, dirent, namespace="primary", flags=0):
        ops = [{"key": key, "flags": 0, "dirent": dirent}]
        return self.flux.call("kvs.commit", {"namespace": namespace, "flags": flags, "ops": ops})

    def lookup(self, key, flags=0, **where):
        return self.flux.call("kvs.lookup", {"key": key, "flags": flags, **(where or {"namespace": "primary"})})["val"]

    @staticmethod
    def val(text):
        return {"data": base64.b64encode(text.encode()).decode(), "type": "val", "ver": 1}

    def test_namespace_of_an_unknown_user(self):
        """flux kvs namespace create: C clients send user ids as signed numbers."""
        for name, owner, really in (("stock1", -1, os.getuid()), ("stock2", 0xFFFFFFFF, os.getuid()),
                                    ("stock3", -2, 0xFFFFFFFE), ("stock4", 1000, 1000)):
            self.flux.rpc("kvs.namespace-create", {"namespace": name, "rootref": "", "owner": owner, "flags": 0}, 0)
            self.assertEqual(self.flux.call("kvs.getroot", {"namespace": name})["owner"], really)
        self.refused(errno.EPROTO, "kvs.namespace-create",
                     {"namespace": "stock5", "rootref": "", "owner": 1 << 40, "flags": 0}, 0)

    def test_copy_of_a_directory(self):
        """flux kvs copy, move, put --treeobj, get --at: a directory is put by the name that a lookup told."""
        for copies in range(3):
            self.commit("stock.dir.x", self.val("%d" % copies))
            told = self.lookup("stock.dir", 16)
            self.assertEqual(told["type"], "dirref")
            self.commit("stock.copy%d" % copies, told)
            self.commit("stock.dir.x", self.val("other"))
            self.assertEqual(self.lookup("stock.copy%d.x" % copies), self.val("%d" % copies))
            self.assertEqual(self.lookup("x", rootdir=told), self.val("%d" % copies))
        long = "long " * 100
        self.commit("stock.long", self.val(long))
        told = self.lookup("stock.long", 16)
        self.assertEqual(told["type"], "valref")
        self.commit("stock.long2", told)
        self.commit("stock.long", self.val(""))
        self.assertEqual(self.lookup("stock.long2"), self.val(long))


class Content(StockCase):
    def test_the_store_has_what_was_told(self):
        """flux dump --no-cache, flux dump --checkpoint, flux fsck: past the cache, from a root that is new."""
        for round in range(3):
            val = {"data": base64.b64encode(b"%d" % round).decode(), "type": "val", "ver": 1}
            ops = [{"key": "backing.x", "flags": 0, "dirent": val}]
            self.flux.call("kvs.commit", {"namespace": "primary", "flags": 0, "ops": ops})
            root = self.flux.call("kvs.getroot", {"namespace": "primary"})["rootref"]
            digest = bytes.fromhex(root.partition("-")[2])
            if round == 1:
                self.flux.rpc("content-backing.validate", nodeid=0, raw=digest)
            names = json.loads(self.flux.rpc("content-backing.load", nodeid=0, raw=digest).payload)["data"]
            self.assertIn("backing", names)
        newest = self.flux.call("content.checkpoint-get")["value"][0]
        self.assertTrue(newest["rootref"].startswith("sha1-") and newest["sequence"] > 0, newest)
        for method in ("load", "validate"):
            with self.assertRaises(RpcError) as caught:
                self.flux.rpc("content-backing." + method, nodeid=0, raw=bytes(20))
            self.assertEqual(caught.exception.errnum, errno.ENOENT)

    def test_pieces_of_a_file(self):
        """flux archive create --mmap, remove."""
        data = os.urandom(5000)
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            body = {"path": os.path.realpath(file.name), "chunksize": 4096, "tag": "stock"}
            self.flux.rpc("content.mmap-add", body, 0)
            for piece in (data[4096:], data[:4096]):
                digest = hashlib.sha1(piece).digest()
                self.assertEqual(self.client(1).rpc("content.load", raw=digest).payload, piece)
            self.refused(errno.EINVAL, "content.mmap-add", {**body, "path": "relative"}, 0)
            self.refused(errno.EINVAL, "content.mmap-add", {**body, "chunksize": 0}, 0)
            text = self.refused(errno.ENOENT, "content.mmap-add", {**body, "path": "/no/such/file"}, 0)
            self.assertEqual(text, "/no/such/file: No such file or directory")
        self.flux.rpc("content.mmap-remove", {"tag": "stock"}, 0)
        self.flux.rpc("content.mmap-remove", {"tag": "nosuch"}, 0)


class Jobs(StockCase):
    def test_unknown_job_and_unknown_key(self):
        """flux job info."""
        self.assertEqual(self.refused(errno.ENOENT, "job-info.lookup", {"id": 123, "keys": ["R"], "flags": 0}),
                         "invalid job id")
        held = self.submit(["true"], urgency=0)
        self.assertEqual(self.refused(errno.ENOENT, "job-info.lookup", {"id": held, "keys": ["R"], "flags": 0}),
                         "R: key not found")
        self.flux.rpc("job-manager.raise", {"id": held, "severity": 0, "type": "cancel"})

    def test_a_job_that_never_ran_has_no_guest_events(self):
        """flux job attach of a job that was canceled in the queue: no error."""
        held = self.submit(["true"], urgency=0)
        tag = self.flux.stream("job-info.eventlog-watch", {"id": held, "path": "guest.exec.eventlog", "flags": 0})
        self.flux.rpc("job-manager.raise", {"id": held, "severity": 0, "type": "cancel"})
        with self.assertRaises(RpcError) as caught:
            self.flux.response(tag)
        self.assertEqual(caught.exception.errnum, errno.ENODATA)
        self.assertEqual(self.eventlog(held)[0][-1]["name"], "clean")
        self.assertEqual(self.eventlog(held, "guest.exec.eventlog"), ([], errno.ENODATA))
        ran = self.submit(["true"])
        self.finish(ran)
        self.assertEqual(self.eventlog(ran, "guest.nosuch"), ([], errno.ENOENT))

    def test_lists_of_all_users(self):
        """flux job list -A, in its old form."""
        held = self.submit(["true"], urgency=0)
        for userid in (-1, 0xFFFFFFFF, os.getuid()):
            answer = self.flux.call("job-list.list", {"max_entries": 0, "attrs": ["urgency"], "userid": userid,
                                                      "states": 0, "results": 0})
            self.assertIn(held, [job["id"] for job in answer["jobs"]], userid)
        self.flux.rpc("job-manager.raise", {"id": held, "severity": 0, "type": "cancel"})

    def test_cores_of_whole_nodes_are_known_later(self):
        """flux jobs -N2 --exclusive."""
        held = self.submit(["true"], 2, 2, urgency=0, exclusive=True)
        job = self.flux.call("job-list.list-id", {"id": held, "attrs": ["ncores", "nnodes"]})["job"]
        self.assertEqual(job, {"id": held, "nnodes": 2})
        self.flux.rpc("job-manager.raise", {"id": held, "severity": 0, "type": "cancel"})

    def test_process_table(self):
        """flux job hostpids, flux job attach --debug."""
        job = self.submit(["sleep", "100"], tasks=2, nodes=2)
        tag = self.flux.stream("job-info.eventlog-watch", {"id": job, "path": "guest.exec.eventlog", "flags": 0})
        while True:
            event = json.loads(self.flux.response(tag).json()["event"])
            if event["name"] == "shell.init":
                service, leader = event["context"]["service"], event["context"]["leader-rank"]
            if event["name"] == "shell.start":
                break
        table = self.flux.call(service + ".proctable", {}, leader)
        self.assertEqual(sorted(table), ["executables", "hosts", "ids", "pids", "ranks"])
        self.assertEqual((len(table["hosts"]), table["executables"]), (2, ["sleep", "sleep"]))
        self.assertEqual((table["ids"], sorted((table["ranks"][0], sum(table["ranks"])))), ([0, 1], [0, 1]))
        for pid in (table["pids"][0], sum(table["pids"])):
            with open("/proc/%d/comm" % pid) as comm:
                self.assertEqual(comm.read().strip(), "sleep")
        self.flux.rpc("job-manager.raise", {"id": job, "severity": 0, "type": "cancel"})
        self.finish(job)

    def test_the_first_exit_gives_the_status(self):
        """flux run -o exit-timeout=0.1s, -o exit-on-error: the exit code is that of the task that failed."""
        script = ["sh", "-c", "test $FLUX_TASK_RANK = 0 && exit 3; sleep 100"]
        for option, value, words in (("exit-timeout", "0.1s", "exited (Exit 3) and exit-timeout=0.1s has expired"),
                                     ("exit-on-error", 1, "failed (Exit 3) and exit-on-error is set")):
            for nodes in (1, 2):
                exceptions, status, output = self.finish(self.submit(script, 2, nodes, options={option: value}))
                note = exceptions[0]["note"]
                self.assertTrue(note.startswith("sh: task rank 0 on host ") and note.endswith(words), note)
                self.assertEqual((exceptions[0]["wait_status"], status), (768, 768))
                self.assertIn(words, output)

    def test_a_bad_map_of_tasks(self):
        """flux run --taskmap=manual:..."""
        options = {"taskmap": {"scheme": "manual", "value": "[[0,3,1,1]]"}}
        exceptions, status, _ = self.finish(self.submit(["true"], 2, 2, options=options))
        self.assertIn("taskmap", exceptions[0]["note"])
        self.assertEqual(status, 256)

    def test_environment(self):
        """flux run --env=NAME={{taskid}}."""
        script = ["sh", "-c", "echo $TAG $FLUX_JOB_ID_PATH ${TMPDIR-none}"]
        job = self.submit(script, 2, options={"env-expand": {"TAG": "{{taskid}}/{{size}}"}})
        _, status, output = self.finish(job)
        self.assertEqual(status, 0)
        lines = [line.split() for line in sorted(output.splitlines())]
        self.assertEqual([(line[0], line[2]) for line in lines], [("0/2", "none"), ("1/2", "none")])
        self.assertRegex(lines[0][1], r"^/(\u0192|f)[1-9A-HJ-NP-Za-km-z]+$")

    def test_the_warning_signal_is_announced(self):
        """flux run -t 1s --signal=TERM@0.9s."""
        options = {"signal": {"signum": 15, "timeleft": 99.0}}
        job = self.submit(["sleep", "100"], options=options)
        self.flux.rpc("job-manager.update", {"id": job, "updates": {"attributes.system.duration": 60.0}})
        _, status, output = self.finish(job)
        self.assertIn("job will expire in 99.0s, sending SIGTERM to job", output)
        self.assertEqual(status, 143 << 8)


if __name__ == "__main__":
    unittest.main(verbosity=1)
