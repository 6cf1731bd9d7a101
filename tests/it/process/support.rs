//! Children that are watched, waited for with a deadline, and killed when they are dropped.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Longer than anything here takes on a slow machine; what takes longer never ends.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at something that is waited for.
const GLANCE: Duration = Duration::from_millis(4);

/// Tries until it succeeds, and fails with the last complaint.
pub(super) fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(complaint) if Instant::now() > deadline => {
                panic!("{what}: not within {PATIENCE:?}: {complaint}")
            }
            Err(_) => thread::sleep(GLANCE),
        }
    }
}

/// The program under test, with nothing of the surrounding environment that it reads.
pub(super) fn anabranch() -> Command {
    let mut command = Command::new(program());
    isolate(&mut command);
    command
}

/// Where the program under test is: cargo says so at run time, which allows tests that were moved
/// after they were built; before that, when they are built.
pub(super) fn program() -> String {
    let built = || env!("CARGO_BIN_EXE_anabranch").to_owned();
    std::env::var("CARGO_BIN_EXE_anabranch").unwrap_or_else(|_| built())
}

/// Removes every variable that the program reads.
pub(super) fn isolate(command: &mut Command) {
    let ours = std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_string_lossy().starts_with("ANABRANCH_"));
    ours.for_each(|name| {
        command.env_remove(name);
    });
    command.env_remove("NO_COLOR");
}

/// Runs the program to its end with these arguments.
pub(super) fn run(arguments: &[&str]) -> Outcome {
    let mut command = anabranch();
    command.args(arguments);
    Running::start(command).end()
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Outcome {
    /// Checks the exit code, and shows everything if it is another one.
    #[track_caller]
    pub(super) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        assert!(!self.stderr.contains("panicked"), "{self}");
        self
    }

    /// Checks that the messages hold all these parts.
    #[track_caller]
    pub(super) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "expected {part:?} on stderr:\n{self}");
        }
        self
    }

    /// Checks the data, to the letter.
    #[track_caller]
    pub(super) fn prints(self, data: &str) -> Self {
        assert_eq!(self.stdout, data, "{}", self.stderr);
        self
    }

    /// Reads the data as one JSON value.
    #[track_caller]
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr } = self;
        write!(f, "exit code {code:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// A running program with everything below it.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    scope: Scope,
    stdout: Captured,
    stderr: Captured,
}

/// What is killed with a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// The program alone.
    Process,
    /// Everything that it started, too.
    Group,
}

impl Running {
    /// Starts a program without input.
    pub(super) fn start(command: Command) -> Self {
        Self::spawn(command, "", Scope::Process)
    }

    /// Starts a program and gives it its input.
    pub(super) fn start_with_input(command: Command, input: &str) -> Self {
        Self::spawn(command, input, Scope::Process)
    }

    /// Starts a program, such as a shell, that leaves others behind when it is killed.
    pub(super) fn start_group(mut command: Command) -> Self {
        use std::os::unix::process::CommandExt;
        command.process_group(0);
        Self::spawn(command, "", Scope::Group)
    }

    fn spawn(mut command: Command, input: &str, scope: Scope) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // A program that ends without reading its input has said why.
        thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let stdout = Captured::start(child.stdout.take().unwrap());
        let stderr = Captured::start(child.stderr.take().unwrap());
        Self { child, scope, stdout, stderr }
    }

    /// Sends a signal, such as `TERM`, to the program itself.
    pub(super) fn signal(&self, name: &str) {
        send(name, &self.child.id().to_string());
    }

    /// Returns the bytes of memory that the program has at the moment.
    pub(super) fn resident_bytes(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// Ends the program as a power cut would: it gets no chance to do anything.
    pub(super) fn kill(mut self) -> Outcome {
        self.child.kill().unwrap();
        self.end()
    }

    /// Waits for the end.
    pub(super) fn end(mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            assert!(Instant::now() < deadline, "still running: {}", self.said());
            thread::sleep(GLANCE);
        };
        Outcome { code: status.code(), stdout: self.stdout.all(), stderr: self.stderr.all() }
    }

    /// Tells how the program ended, if it did.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until stdout holds a text, and returns all of stdout so far.
    pub(super) fn wait_for_data(&mut self, text: &str) -> String {
        self.wait_for(text, |running| running.stdout.so_far())
    }

    /// Waits until stderr holds a text.
    pub(super) fn wait_for_message(&mut self, text: &str) {
        self.wait_for(text, |running| running.stderr.so_far());
    }

    fn wait_for(&mut self, text: &str, look: impl Fn(&Self) -> String) -> String {
        eventually(&format!("waiting for {text:?}"), || {
            let ended = self.ended();
            let found = look(self);
            if found.contains(text) {
                return Ok(found);
            }
            assert!(ended.is_none(), "ended before it said {text:?}: {}", self.said());
            Err(self.said())
        })
    }

    /// Returns everything that was said so far, for messages.
    pub(super) fn said(&self) -> String {
        format!("--- stdout\n{}\n--- stderr\n{}", self.stdout.so_far(), self.stderr.so_far())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.scope == Scope::Group {
            send("KILL", &format!("-{}", self.child.id()));
        }
        // It may have ended on its own a moment ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The shell's `kill`: the standard library knows no other signal than the last one.
fn send(signal: &str, target: &str) {
    let script = format!("kill -s {signal} -- {target}");
    // The process may have ended on its own a moment ago, so a failure says nothing.
    Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).status().unwrap();
}

/// What comes out of a pipe, read as it comes so that the writer never waits.
#[derive(Debug)]
struct Captured {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let target = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let mut piece = [0; 8192];
            while let Ok(length @ 1..) = pipe.read(&mut piece) {
                target.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.so_far()
    }
}

/// Replaces ids and times by as many `x`, so that tables keep their columns.
pub(super) fn mask(text: &str) -> String {
    let is_part = |c: char| matches!(c, '0'..='9' | 'a'..='f' | '-' | ':' | '.');
    let mut masked = String::with_capacity(text.len());
    let mut run = String::new();
    for c in text.chars().chain(['\n']) {
        if is_part(c) {
            run.push(c);
            continue;
        }
        let is_id = run.len() >= 8 && run.contains(|c: char| c.is_ascii_digit());
        masked.push_str(&if is_id { "x".repeat(run.len()) } else { run.clone() });
        run.clear();
        masked.push(c);
    }
    masked.pop();
    masked
}

#[test]
fn ids_and_times_are_masked_and_words_are_not() {
    assert_eq!(
        mask("3f2a9c1b  decade  12@5d0c112233…  2026-03-01 10:15:30.123Z  2102"),
        "xxxxxxxx  decade  12@xxxxxxxxxx…  xxxxxxxxxx xxxxxxxxxxxxZ  2102"
    );
}
