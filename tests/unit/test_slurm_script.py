"""What is handed to sbatch: the script, the options, the file with the secrets."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from searchae.errors import UserError
from searchae.launch.base import Job
from searchae.launch.slurm import ABANDONED_S, SlurmLauncher
from searchae.launch.slurm_files import Files
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
. '/shared/me/50% more/searchae-svhn-1.env' || exit
case "$SLURM_ARRAY_TASK_ID" in
0) log=/logs/0.log; command=(/venv/bin/python -m searchae worker --study 'it'"'"'s; $HOME') ;;
1) log='/my logs/worker-1.log'; command=(/venv/bin/python -m searchae worker) ;;
esac

run() {
  trap : TERM USR1
  "${command[@]}" >>"$log" 2>&1 </dev/null
  echo "$?" >"$ended"
}
[ -z "$told" ] || exit 130
run &
while kill -0 "$!" 2>/dev/null; do wait "$!"; done
exit "$(cat "$ended")"
"""

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
