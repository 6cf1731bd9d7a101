//! The commands of README.md, as they are written there.
//!
//! Blocks marked `sh` are run in their order, in one temporary directory, with `anabranch` on the
//! path and `anabranch dev` running on its default ports. Variables and the directory that a block
//! sets hold for the blocks after it.
//!
//! - `sh background`: each line is started and left running until the next heading. Where that is
//!   a node, it takes the ports of the `dev` cluster, which makes room until then.
//! - `sh no-run`: only for cargo, with the reason before it. The first such block is the set-up.
//! - `console`: commands of other machines, after prompts such as `eu$ `. They are not run, but the
//!   program must know their arguments.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;

use super::runner::Runner;
use super::support::run;

/// A fenced block of commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// The line of its first command; the first line of the file is 1.
    pub(super) line: usize,
    /// How many headings are before it.
    pub(super) section: usize,
    pub(super) mode: Mode,
    pub(super) script: String,
}

/// What is done with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is run to its end.
    Run,
    /// Its lines are started.
    Background,
    /// The program is asked whether it knows the arguments.
    Parse,
    /// It is only looked at.
    NoRun,
}

impl Block {
    /// Returns the commands, one per line, with continued lines joined.
    pub(super) fn commands(&self) -> Vec<String> {
        let joined = self.script.replace("\\\n", " ");
        let lines = joined.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    }
}

/// Finds the blocks of commands in a Markdown text.
fn extract(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    // What is before a block: the last line that is not blank.
    let (mut section, mut before) = (0, "");
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.trim_start().strip_prefix(FENCE) else {
            section += usize::from(line.starts_with('#'));
            before = if line.trim().is_empty() { before } else { line };
            continue;
        };
        let body: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != FENCE).collect();
        if number + body.len() >= text.lines().count() {
            return Err(format!("line {number}: this block does not end"));
        }
        let words: Vec<&str> = info.split_whitespace().collect();
        let complain = |what: &str| Err(format!("line {number}: {what}"));
        let mode = match words.as_slice() {
            ["sh"] => Mode::Run,
            ["sh", "background"] => Mode::Background,
            ["console"] => Mode::Parse,
            ["sh", "no-run"] if !before.starts_with(char::is_alphanumeric) => {
                return complain("no-run needs its reason before it");
            }
            ["sh", "no-run"] => Mode::NoRun,
            ["sh" | "console", ..] => return complain("after sh comes background or no-run"),
            ["bash" | "shell" | "zsh", ..] => return complain("commands are marked sh"),
            _ => {
                before = "";
                continue;
            }
        };
        let script = match mode {
            Mode::Run | Mode::Background | Mode::NoRun => body.join("\n"),
            Mode::Parse => typed(&body),
        };
        if script.trim().is_empty() {
            return complain("there is no command in this block");
        }
        blocks.push(Block { line: number + 1, section, mode, script });
        before = "";
    }
    Ok(blocks)
}

/// Returns what was typed in a console, after a prompt of one word and `$ `.
fn typed(body: &[&str]) -> String {
    let mut continued = false;
    let typed = body.iter().filter_map(|line| {
        let prompted = line.trim_start().split_once("$ ");
        let prompted = prompted.filter(|(host, _)| host.chars().all(char::is_alphanumeric));
        let typed = if continued { Some(*line) } else { prompted.map(|(_, command)| command) };
        continued = typed.is_some_and(|line| line.ends_with('\\'));
        typed
    });
    typed.collect::<Vec<_>>().join("\n")
}

const FENCE: &str = "```";

/// What a fresh clone needs.
const SET_UP: [&str; 2] = ["cargo run --release -- dev", "cargo test --workspace"];

#[test]
fn the_readme_works_as_written() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("README.md");
    let Ok(text) = fs::read_to_string(&file) else {
        println!("there is no {}", file.display());
        return;
    };
    let blocks = extract(&text).unwrap_or_else(|error| panic!("README.md, {error}"));
    check_cargo_commands(&blocks);
    check_default_ports();
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    fs::copy(root.join("regions.toml"), work.join("regions.toml")).unwrap();
    if root.join("examples").is_dir() {
        symlink(root.join("examples"), work.join("examples")).unwrap();
    }
    let mut runner = Runner::new(folder.path());
    for block in &blocks {
        runner.run(block).unwrap_or_else(|error| panic!("README.md:{}: {error}", block.line));
    }
}

/// Checks what is not run here: that it is the set-up, or cargo running what is there.
fn check_cargo_commands(blocks: &[Block]) {
    let mut not_run = blocks.iter().filter(|block| block.mode == Mode::NoRun).map(Block::commands);
    assert_eq!(not_run.next().expect("README.md shows the set-up"), SET_UP);
    for command in not_run.flatten() {
        if let Some(arguments) = command.strip_prefix("cargo run --release -- ") {
            let arguments: Vec<&str> = arguments.split_whitespace().chain(["--help"]).collect();
            run(&arguments).exits(0);
        } else {
            let test = command.strip_prefix("cargo test --test ").unwrap_or_default();
            let is_there = ["it", "sim", "tidy"].contains(&test.split(' ').next().unwrap());
            assert!(is_there, "README.md shows `{command}`, and nothing says that it works");
        }
    }
}

fn check_default_ports() {
    for (tcp, udp) in [(3031, 4101), (3032, 4102), (3033, 4103)] {
        let here = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let free = TcpListener::bind(here(tcp)).is_ok() && UdpSocket::bind(here(udp)).is_ok();
        assert!(
            free,
            "README.md uses the default ports, and {tcp} (TCP) or {udp} (UDP) is taken: stop the \
             program that listens there, such as `anabranch dev`"
        );
    }
}

const SAMPLE: &str = "\
# Title

It takes minutes to build:
```sh no-run
cargo run --release -- dev
```

```toml
[cluster]
```

## Use

```sh
# A comment
X=1; anabranch doc put a/b \\
  '{}'

echo \"$X\"
```

```console
eu$ anabranch doc get \\
    a/b
{}
us$ anabranch doc ls a
```
1. In a list:
   ```sh background
   anabranch serve --region a
   anabranch serve --region b
   ```
";

#[test]
fn blocks_are_found_with_their_lines_and_modes() {
    let blocks = extract(SAMPLE).unwrap();
    let found: Vec<_> = blocks.iter().map(|b| (b.line, b.section, b.mode, b.commands())).collect();
    let commands = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        found,
        [
            (5, 1, Mode::NoRun, commands(&["cargo run --release -- dev"])),
            (15, 2, Mode::Run, commands(&["X=1; anabranch doc put a/b    '{}'", "echo \"$X\""])),
            (23, 2, Mode::Parse, commands(&["anabranch doc get      a/b", "anabranch doc ls a"])),
            (
                30,
                2,
                Mode::Background,
                commands(&["anabranch serve --region a", "anabranch serve --region b"])
            ),
        ]
    );
}

#[test]
fn what_would_escape_the_test_is_refused() {
    for (text, part) in [
        ("\n```sh no-run\ncargo test\n```\n", "line 2: no-run needs its reason"),
        ("# Title\n\n```sh no-run\ncargo test\n```\n", "line 3: no-run needs its reason"),
        ("```console\nanabranch serve\n```\n", "line 1: there is no command"),
        ("```sh\n\n```\n", "line 1: there is no command"),
        ("```bash\nls\n```\n", "line 1: commands are marked sh"),
        ("```sh norun\nls\n```\n", "background or no-run"),
        ("a\n```sh\nls\n", "line 2: this block does not end"),
    ] {
        let error = extract(text).expect_err(text);
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(extract("```json\n{}\n```\n"), Ok(Vec::new()));
}

#[test]
fn blocks_are_run_in_order_and_share_variables_and_directory() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("work")).unwrap();
    let mut runner = Runner::without_cluster(folder.path());
    let mut run = |script: &str| {
        let script = script.to_owned();
        runner.run(&Block { line: 1, section: 0, mode: Mode::Run, script })
    };
    run("NAME=\"it's\"\nmkdir inside && cd inside\n").unwrap();
    run("echo \"$NAME\" > file\n").unwrap();
    let file = folder.path().join("work/inside/file");
    assert_eq!(fs::read_to_string(file).unwrap(), "it's\n");
    run("anabranch --version | grep -q '^anabranch [0-9]'\n").unwrap();
    let error = run("echo told\nfalse\necho not reached\n").unwrap_err();
    assert!(error.contains("--- stdout\ntold\n\n--- stderr"), "it ends where it fails: {error}");
    run("echo \"$UNSET_VARIABLE\"\n").unwrap_err();
}
