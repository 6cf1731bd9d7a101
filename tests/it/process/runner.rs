//! Runs the blocks of a document as a reader would, in one shell session.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::docs::{Block, Mode};
use super::support::{Running, eventually, isolate, program};

/// One session of a reader.
pub(super) struct Runner {
    work: PathBuf,
    /// What the blocks so far have left behind in the shell.
    session: PathBuf,
    path: OsString,
    cluster: Cluster,
    background: Vec<Running>,
    section: usize,
}

/// The cluster that a document takes for granted.
enum Cluster {
    NotWanted,
    Stopped { data: PathBuf },
    Running { data: PathBuf, dev: Running },
}

impl Runner {
    /// Makes a session with a cluster on the default ports. `folder` has the directory `work`.
    pub(super) fn new(folder: &Path) -> Self {
        let cluster = Cluster::Stopped { data: folder.join("data") };
        Self { cluster, ..Self::without_cluster(folder) }
    }

    /// Makes a session in which no cluster runs.
    pub(super) fn without_cluster(folder: &Path) -> Self {
        let programs = folder.join("bin");
        fs::create_dir(&programs).unwrap();
        symlink(program(), programs.join("anabranch")).unwrap();
        let paths = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([programs].into_iter().chain(env::split_paths(&paths))).unwrap();
        let session = folder.join("session");
        fs::write(&session, "").unwrap();
        Self {
            work: folder.join("work"),
            session,
            path,
            cluster: Cluster::NotWanted,
            background: Vec::new(),
            section: 0,
        }
    }

    /// Runs or starts a block; an error says what the commands said.
    pub(super) fn run(&mut self, block: &Block) -> Result<(), String> {
        if block.section != self.section {
            self.background.clear();
            self.section = block.section;
        }
        match block.mode {
            Mode::NoRun => return Ok(()),
            Mode::Background => return self.start(&block.commands()),
            Mode::Parse => return block.commands().iter().try_for_each(|line| self.parse(line)),
            Mode::Run => {}
        }
        if self.background.is_empty() {
            self.start_cluster();
        }
        let script = format!(
            ". {session}\nset -aeu\n{}\nset +aeu\n{{ export -p; echo \"cd '$PWD'\"; }} > {session}\n",
            block.script,
            session = self.session.display(),
        );
        let outcome = Running::start_group(self.shell(&script)).end();
        if outcome.code == Some(0) { Ok(()) } else { Err(format!("{}\n{outcome}", block.script)) }
    }

    /// Asks the program whether it knows the arguments of a command.
    fn parse(&self, command: &str) -> Result<(), String> {
        let outcome = Running::start_group(self.shell(&format!("{command} --help"))).end();
        let is_known = outcome.code == Some(0) && command.starts_with("anabranch ");
        if is_known { Ok(()) } else { Err(format!("{command}\n{outcome}")) }
    }

    fn start(&mut self, commands: &[String]) -> Result<(), String> {
        let are_nodes = |command: &String| {
            command.contains("anabranch serve") || command.contains("anabranch dev")
        };
        if commands.iter().any(are_nodes) {
            self.stop_cluster();
        }
        for command in commands {
            let script = format!(". {}\nset -eu\nexec {command}\n", self.session.display());
            let mut started = Running::start_group(self.shell(&script));
            await_start(command, &mut started)?;
            self.background.push(started);
        }
        Ok(())
    }

    fn start_cluster(&mut self) {
        if let Cluster::Stopped { data } = &self.cluster {
            let mut command = Command::new("anabranch");
            command.env("PATH", &self.path).current_dir(&self.work);
            isolate(&mut command);
            command.arg("dev").arg("--data").arg(data);
            let mut dev = Running::start(command);
            dev.wait_for_data("Ctrl-C stops.");
            self.cluster = Cluster::Running { data: data.clone(), dev };
        }
    }

    fn stop_cluster(&mut self) {
        let cluster = std::mem::replace(&mut self.cluster, Cluster::NotWanted);
        self.cluster = match cluster {
            Cluster::Running { data, dev } => {
                dev.signal("TERM");
                dev.end().exits(0);
                Cluster::Stopped { data }
            }
            other @ (Cluster::NotWanted | Cluster::Stopped { .. }) => other,
        };
    }

    fn shell(&self, script: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(&self.work).env("PATH", &self.path);
        isolate(&mut shell);
        shell
    }
}

/// Waits until a command that goes on says that it serves, or has ended well.
fn await_start(command: &str, started: &mut Running) -> Result<(), String> {
    eventually(&format!("starting {command}"), || {
        let ended = started.ended();
        let said = started.said();
        match ended {
            Some(status) if status.success() => Ok(Ok(())),
            Some(status) => Ok(Err(format!("{command}\n{status}\n{said}"))),
            None if said.contains(" is up") || said.contains("serving") => Ok(Ok(())),
            None => Err(said),
        }
    })
}
