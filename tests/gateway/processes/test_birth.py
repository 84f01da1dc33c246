import os
import socket
import subprocess
import sys

from gateway.processes.birth import Birth, new_writer
from gateway.settings import Settings
from tests.kit.supervised import ROOT


def test_a_child_reads_what_the_supervisor_wrote():
    near, far = socket.socketpair()
    settings = Settings(state_dir="/tmp/x", workers=3)
    birth = Birth(process="worker-1", writer=new_writer("worker"), settings=settings, pipe_fd=far.fileno(), rest_fd=7)
    assert birth.fds == [far.fileno(), 7]
    code = """
import os
from gateway.processes.birth import Birth
birth = Birth.of(os.environ)
print(birth.process, birth.writer, birth.settings.workers, birth.settings.state_dir, birth.rest_fd, birth.grpc_fd)
"""
    environ = os.environ | birth.environment()
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["worker-1", birth.writer, "3", "/tmp/x", "7", "None"]
    near.close()
    far.close()


def test_an_orphan_does_not_begin(tmp_path):
    near, far = socket.socketpair()
    birth = Birth(process="worker-0", writer=new_writer("worker"), settings=Settings(workers=1), pipe_fd=far.fileno())
    environ = os.environ | birth.environment() | {"RUNOFF_PARENT": "1"}
    code = "import os; from gateway.processes.birth import Birth; Birth.of(os.environ); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout) == (1, b"")
    near.close()
    far.close()


def test_a_writer_id_names_its_role_and_is_never_used_again():
    ids = {new_writer("shadow") for _ in range(100)}
    assert len(ids) == 100
    assert all(writer.startswith("shadow-") for writer in ids)
