"""What is handed to sbatch: the script, the options, the file with the secrets."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from searchae.errors import ArtifactsError, UserError
from searchae.launch.base import Job
from searchae.launch.logs import last_lines
from searchae.launch.slurm import ABANDONED_S, SlurmLauncher
from searchae.launch.slurm_files import LARGEST_MESSAGES, Files
from searchae.launch.slurm_script import environment, overriding_variables, script

SECRET = "postgresql://me:hunter2@db/searchae"

EXPECTED = r"""#!/bin/bash
#SBATCH --job-name=searchae-svhn-1
#SBATCH --array=0-1
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@60
#SBATCH --export=ALL
#SBATCH '--output=/shared/me/50%% more/searchae-svhn-1-%a.slurm'
#SBATCH --gres=gpu:1
#SBATCH --partition=gpu
#SBATCH --time=4:00:00
#SBATCH --exclusive
#SBATCH '--comment=two words'

told=
trap 'told=1' TERM
trap 'kill -TERM 0' USR1
ended='/shared/me/50% more/exits/searchae-svhn-1-'"$SLURM_ARRAY_TASK_ID"
rm -f "$ended"
environment='/shared/me/50% more/searchae-svhn-1.env'
[ -f "$environment" ] && exec 3<"$environment" && [ -O /dev/fd/3 ] && . /dev/fd/3 || exit
exec 3<&-
case "$SLURM_ARRAY_TASK_ID" in
0) command=(LOGGED /logs/0.log /venv/bin/python -m searchae worker --study 'it'"'"'s; $HOME') ;;
1) command=(LOGGED '/my logs/worker-1.log' /venv/bin/python -m searchae worker) ;;
esac

run() {
  trap : TERM USR1
  "${command[@]}" </dev/null
  (code=$?; set -C; echo "$code" >"$ended")
}
[ -z "$told" ] || exit 130
run &
while kill -0 "$!" 2>/dev/null; do wait "$!"; done
exit "$(cat "$ended")"
""".replace("LOGGED", f"{shlex.quote(sys.executable)} -m searchae.launch.logged")

PYTHON = ("/venv/bin/python", "-m", "searchae", "worker")
FILES = Files(Path("/shared/me/50% more"), "searchae-svhn-1")


def worker(index: int = 0, gpus: float = 0.0, log: str = "/logs", **variables: str) -> Job:
    path = Path(log) / f"worker-{index}.log"
    return Job(f"worker-{index}", PYTHON, path, variables, cpus=4, gpus=gpus)


def test_the_script_is_this_to_the_letter() -> None:
    jobs = [
        Job("a", (*PYTHON, "--study", "it's; $HOME"), Path("/logs/0.log"), cpus=4, gpus=1),
        worker(1, gpus=1, log="/my logs"),
    ]
    options = {"partition": "gpu", "time": "4:00:00", "exclusive": "", "comment": "two words"}
    assert script(jobs, FILES, options) == EXPECTED


@pytest.mark.parametrize(("gpus", "line"), [(0.5, "gres=gpu:1"), (2.0, "gres=gpu:2")])
def test_a_job_gets_whole_gpus(gpus: float, line: str) -> None:
    assert f"#SBATCH --{line}\n" in script([worker(gpus=gpus)], FILES, {})


def test_without_gpus_none_is_asked_for() -> None:
    assert "gpu" not in script([worker()], FILES, {})


def test_the_user_s_kind_of_gpu_replaces_ours() -> None:
    text = script([worker(gpus=1)], FILES, {"gres": "gpu:a100:1"})
    assert [line for line in text.splitlines() if "gres" in line] == ["#SBATCH --gres=gpu:a100:1"]


def test_each_task_gets_its_own_variables_to_the_letter(tmp_path: Path) -> None:
    odd = 'it\'s $HOME `id`\n"two" lines\\'
    file = tmp_path / "environment"
    file.write_text(environment([worker(A="0", B="both"), worker(1, A=odd)]))
    program = f". '{file}'; {sys.executable} -S -c 'import os; print(os.environ[\"A\"], end=\"\")'"
    for task, value in (("0", "0"), ("1", odd)):
        done = subprocess.run(
            ("bash", "-c", program),
            env={"SLURM_ARRAY_TASK_ID": task},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == value


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("array", "0-9", "--slurm array=0-9: --workers says how many"),
        ("cpus-per-task", "2", "--threads"),
        ("signal", "USR1", "searchae sets it itself"),
        ("export", "NONE", "searchae sets it itself"),
        ("p", "gpu", "no long option of sbatch; for example --slurm partition=gpu"),
        ("--partition", "gpu", "no long option"),
        ("time=1\n#SBATCH --wrap", "x", "no long option"),
        ("comment", "one\nrm -rf /", "control characters"),
        ("comment", "it's", "quotes"),
        ("comment", "a # b", "quotes"),
    ],
)
def test_an_option_that_cannot_be_is_refused(
    tmp_path: Path, key: str, value: str, words: str
) -> None:
    with pytest.raises(UserError, match=r"^--slurm ") as e:
        SlurmLauncher(tmp_path, {key: value})
    assert words in str(e.value)


@pytest.mark.parametrize("name", ["back\\slash", "two\nlines"])
def test_a_folder_that_slurm_cannot_write_to_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="give another --artifacts folder"):
        SlurmLauncher(tmp_path / name / "slurm", {})


def test_sbatch_s_words_keep_their_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").write_text("#!/bin/sh\nprintf 'error: one\\nerror: two\\n' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError, match=r"^--launcher slurm: error: one\nerror: two$"):
        SlurmLauncher(tmp_path / "slurm", {}).start([worker(log=str(tmp_path))])


def test_a_site_s_defaults_do_not_overrule_what_the_script_says() -> None:
    overruled = overriding_variables({"time": "1:00", "partition": "gpu"})
    ours = {"SBATCH_ARRAY_INX", "SBATCH_EXPORT", "SBATCH_SIGNAL", "SBATCH_NO_REQUEUE"}
    assert {"SBATCH_TIMELIMIT", "SBATCH_PARTITION"} | ours <= overruled
    assert "SBATCH_ACCOUNT" not in overruled, "defaults for what is not said stay"


@pytest.fixture
def no_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.usefixtures("no_slurm")
def test_a_machine_without_sbatch_is_told_and_no_secret_is_left(tmp_path: Path) -> None:
    launcher = SlurmLauncher(tmp_path / "slurm", {})
    with pytest.raises(UserError, match="sbatch is not on this machine; run it where jobs"):
        launcher.start([worker(log=str(tmp_path), SEARCHAE_STORAGE=SECRET)])
    assert launcher.alive() == 0
    assert not [p for p in (tmp_path / "slurm").rglob("*") if p.is_file()]


@pytest.fixture
def submissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for sbatch where only what it is given matters: keeps its argv and environment."""
    programs = tmp_path / "bin"
    programs.mkdir()
    kept = tmp_path / "kept"
    (programs / "sbatch").write_text(f'#!/bin/bash\n{{ echo "$@"; env; }} >>{kept}\necho 7\n')
    (programs / "squeue").write_text("#!/bin/bash\n")
    for program in programs.iterdir():
        program.chmod(0o700)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return kept


def test_secrets_stand_in_one_file_that_only_the_user_can_read(
    tmp_path: Path, submissions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCHAE_STORAGE", SECRET)
    folder = tmp_path / "slurm"
    SlurmLauncher(folder, {}).start([worker(log=str(tmp_path), SEARCHAE_STORAGE=SECRET)])
    files = {p: p.read_text() for p in folder.rglob("*") if p.is_file()}
    (holder,) = (p for p, text in files.items() if SECRET in text)
    assert holder.suffix == ".env"
    assert stat.S_IMODE(holder.stat().st_mode) == 0o600
    assert {stat.S_IMODE(p.stat().st_mode) for p in (folder, folder / "exits")} == {0o700}
    assert SECRET not in submissions.read_text(), "neither in sbatch's argv nor handed on by it"


@pytest.mark.usefixtures("submissions")
def test_what_a_killed_launcher_left_is_removed_by_the_next(tmp_path: Path) -> None:
    old, young = tmp_path / "searchae-x-1.env", tmp_path / "searchae-x-2.env"
    for path in (old, young):
        path.write_text(SECRET)
    long_ago = time.time() - ABANDONED_S - 1
    os.utime(old, (long_ago, long_ago))
    SlurmLauncher(tmp_path, {}).start([worker(log=str(tmp_path))])
    assert not old.exists()
    assert young.exists(), "another launcher may be about to submit it"


def run_task(script_text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ("bash", "-c", script_text),
        env={**os.environ, "SLURM_ARRAY_TASK_ID": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.usefixtures("submissions")
def test_a_task_writes_and_reads_through_no_link(tmp_path: Path) -> None:
    log, victim = tmp_path / "study" / "logs" / "worker-0.log", tmp_path / "bashrc"
    launcher = SlurmLauncher(tmp_path / "slurm", {})
    launcher.start([Job("worker-0", (sys.executable, "-S", "-c", "print('trained')"), log)])
    (array,) = launcher._arrays
    victim.write_text("export A=1\n")
    assert run_task(array.script).returncode == 0
    assert (log.read_text(), array.files.exit_code(0)) == ("trained\n", 0)
    log.unlink()
    log.symlink_to(victim)
    assert run_task(array.script).returncode == 1, "the log is a link now"
    log.unlink()
    array.files.exit(0).unlink()
    array.files.exit(0).symlink_to(victim)
    assert array.files.exit_code(0) == -signal.SIGKILL
    assert run_task(array.script).returncode == 0, "the link was removed"
    array.files.exit(0).unlink()
    array.files.exit(0).mkdir()
    assert run_task(array.script).returncode != 0
    logged = log.read_text()
    messages = array.files.slurm_log(0)
    messages.symlink_to(victim)
    array.files.append_messages(0, log)
    messages.unlink()
    os.mkfifo(messages)
    array.files.append_messages(0, log)
    messages.unlink()
    messages.write_bytes(bytes(LARGEST_MESSAGES + 1))
    array.files.append_messages(0, log)
    assert log.read_text() == logged
    assert victim.read_text() == "export A=1\n"


@pytest.mark.usefixtures("submissions")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_is_somebody_else_s_is_neither_run_nor_written(tmp_path: Path) -> None:
    log = tmp_path / "study" / "logs" / "worker-0.log"
    launcher = SlurmLauncher(tmp_path / "slurm", {})
    launcher.start([Job("worker-0", (sys.executable, "-S", "-c", "print('trained')"), log)])
    (array,) = launcher._arrays
    array.files.environment.write_text("touch " + str(tmp_path / "run"))
    os.chown(array.files.environment, 12345, -1)
    assert run_task(array.script).returncode != 0
    assert not (tmp_path / "run").exists()
    for name in ("slurm", f"slurm-user{os.geteuid()}"):
        other = tmp_path / "shared" / name
        other.mkdir(parents=True)
        os.chown(other, 12345, -1)
    with pytest.raises(ArtifactsError, match="is somebody else's"):
        SlurmLauncher(tmp_path / "shared" / "slurm", {}).start([worker(log=str(tmp_path))])


@pytest.mark.usefixtures("submissions")
def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    for name in ("slurm", f"slurm-user{os.geteuid()}"):
        (tmp_path / name).symlink_to(elsewhere)
    with pytest.raises(ArtifactsError, match="is a link or no folder"):
        SlurmLauncher(tmp_path / "slurm", {}).start([worker(log=str(tmp_path))])
    assert list(elsewhere.iterdir()) == []
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755


def test_the_last_lines_of_a_log_are_those_of_a_file_only(tmp_path: Path) -> None:
    log = tmp_path / "a" / "b" / "worker.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"{i}\n" for i in range(100_000)))
    assert last_lines(log, 3) == ["99997", "99998", "99999"]
    log.unlink()
    assert last_lines(log, 3) == []
    os.mkfifo(log)
    assert last_lines(log, 3) == []
    log.unlink()
    log.symlink_to("/dev/zero")
    assert last_lines(log, 3) == []
