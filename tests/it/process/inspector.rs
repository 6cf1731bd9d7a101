//! The inspector in a real terminal: tmux has it on a screen of 80 by 24, the test presses keys
//! and reads the screen.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::support::{Running, eventually, program, run};
use super::topology::{Topology, linked};

/// A terminal that is driven by the test.
struct Screen {
    socket: String,
}

impl Screen {
    /// Opens a terminal of this size, with a shell in it that keeps the screen after the program.
    fn open(columns: u16, lines: u16, command: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let screen = Self { socket: format!("anabranch-{}-{number}", std::process::id()) };
        let (columns, lines) = (columns.to_string(), lines.to_string());
        let script = format!("{command}; code=$?; {MODES}; echo \"exit code $code\"; exec cat");
        screen.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            columns.as_str(),
            "-y",
            lines.as_str(),
            script.as_str(),
        ]);
        screen
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-L").arg(&self.socket).args(arguments).env_remove("TMUX");
        super::support::isolate(&mut command);
        command
            .env_remove("EDITOR")
            .env_remove("VISUAL")
            .env("USER", "zoe")
            .env("LC_ALL", "C.UTF-8");
        let outcome = command.stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&outcome.stdout).into_owned()
    }

    /// Presses keys, by the names that tmux has for them.
    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Returns what is on the screen.
    fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until the screen has all these parts.
    #[track_caller]
    fn shows(&self, parts: &[&str]) -> String {
        eventually(&format!("waiting for {parts:?} on the screen"), || {
            let text = self.text();
            match parts.iter().find(|part| !text.contains(**part)) {
                None => Ok(text),
                Some(part) => Err(format!("{part:?} is not on it:\n{text}")),
            }
        })
    }

    /// Presses a key that decides, until it is taken: a row that has just changed is read again
    /// before the next decision, and a key that comes before that does nothing.
    #[track_caller]
    fn decide(&self, key: &str, done: &str) -> String {
        eventually(&format!("pressing {key} until {done:?} is on the screen"), || {
            let text = self.text();
            if text.contains(done) {
                return Ok(text);
            }
            let ready = !text.contains("reading it again") && !text.contains(" …\n");
            if ready {
                self.press(&[key]);
            }
            Err(text)
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// Says how the terminal was left: a screen that reads single keys has minus signs here.
const MODES: &str = "stty -a | grep -o -e '-*isig -*icanon'";

/// Says whether tmux is there. On the machines of CI it has to be.
fn has_tmux() -> bool {
    let found = Command::new("tmux").arg("-V").output().is_ok_and(|found| found.status.success());
    if !found {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "CI needs tmux");
        println!("skipped: there is no tmux here, and the inspector needs a terminal");
    }
    found
}

/// Two regions that wrote the same field while only one of them was running at a time.
struct Collision {
    topology: Topology,
    east: Running,
    _west: Running,
}

impl Collision {
    fn make() -> Self {
        let topology = Topology::certified(&["east", "west"], "");
        let east = topology.serve("east");
        for (document, name) in [("paris", "Paname"), ("lyon", "Lugdunum")] {
            let path = format!("/v1/docs/cities/{document}");
            topology.http("east").put(&path, &json!({ "name": name }));
        }
        east.signal("TERM");
        east.end().exits(0);
        let west = topology.serve("west");
        topology.http("west").put("/v1/docs/cities/paris", &json!({"name": "Paris"}));
        topology.http("west").put("/v1/docs/cities/lyon", &json!({"name": "Lyon"}));
        let east = topology.serve("east");
        linked(&mut topology.http("east"), 1);
        let collision = Self { topology, east, _west: west };
        for region in ["east", "west"] {
            eventually("both conflicts are known", || {
                let found = collision.list(region);
                if found.len() == 2 { Ok(()) } else { Err(format!("{found:?}")) }
            });
        }
        collision
    }

    fn list(&self, region: &str) -> Vec<Value> {
        let body = self.topology.http(region).get("/v1/conflicts");
        body["conflicts"].as_array().unwrap().clone()
    }

    fn of(&self, document: &str) -> Value {
        let found = self.list("east");
        found.into_iter().find(|row| row["document"] == document).unwrap()
    }

    fn inspect(&self, columns: u16, lines: u16) -> Screen {
        let url = self.topology.url("east");
        let pid = self.topology.path("inspector.pid");
        let editor = self.topology.write("editor", "echo '\"Edited\"' > \"$1\"\n");
        let inspector = format!(
            "echo $$ > {}; export EDITOR=\"sh {editor}\"; exec {} conflicts",
            pid.display(),
            program()
        );
        Screen::open(columns, lines, &format!("sh -c '{inspector} --url {url}'"))
    }

    fn resolve_elsewhere(&self, document: &str) {
        let id = self.of(document)["id"].as_str().unwrap().to_owned();
        let url = self.topology.url("west");
        run(&["conflicts", "resolve", &id, "--take", "1", "--author", "ben", "--url", &url])
            .exits(0);
    }
}

#[test]
fn a_conflict_is_seen_settled_and_undone_and_others_are_heard_live() {
    if !has_tmux() {
        return;
    }
    let collision = Collision::make();
    let screen = collision.inspect(80, 24);
    let text = screen.shows(&["every state · 2", "cities/paris", "cities/lyon", "┌ sides"]);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");

    screen.press(&["/", "p", "a", "r", "i", "s", "Enter"]);
    screen.shows(&["every state · 1 of 2 · /paris", "\"Paris\"", "\"Paname\""]);
    let row = collision.of("cities/paris");
    let [one, two] = [&row["candidates"][0]["value"], &row["candidates"][1]["value"]];
    let shown = if row["winner"] == row["candidates"][0]["id"] { one } else { two };
    let other = if shown == one { ("2", two) } else { ("1", one) };
    screen.decide(other.0, "resolved /name of cities/paris");
    let after = collision.of("cities/paris");
    assert_eq!((&after["state"], &after["settled"]["author"]), (&json!("resolved"), &json!("zoe")));
    let document = || collision.topology.http("east").get("/v1/docs/cities/paris");
    assert_eq!(document()["name"], *other.1);

    screen.decide("u", "undid the resolution of /name of cities/paris");
    screen.shows(&["open"]);
    assert_eq!(document()["name"], *shown, "what showed before shows again");

    screen.press(&["Escape"]);
    screen.shows(&["every state · 2"]);
    collision.resolve_elsewhere("cities/lyon");
    let live = eventually("the other region's decision is on the screen", || {
        let text = screen.text();
        let is_settled = |line: &str| line.contains("cities/lyon") && line.contains("resolved");
        if text.lines().any(is_settled) { Ok(text) } else { Err(text) }
    });
    assert!(!live.contains("disconnected"), "{live}");

    // The value that the editor leaves is written, and the screen comes back.
    screen.press(&["/", "p", "a", "r", "i", "s", "Enter"]);
    screen.shows(&["every state · 1 of 2 · /paris"]);
    screen.decide("e", "\"Edited\" shows");
    assert_eq!(document()["name"], "Edited");
    screen.press(&["q"]);
    screen.shows(&["exit code 0", "isig icanon"]);
}

#[test]
fn without_a_connection_nothing_is_decided() {
    if !has_tmux() {
        return;
    }
    let collision = Collision::make();
    let screen = collision.inspect(80, 24);
    screen.shows(&["every state · 2", "┌ sides"]);
    let Collision { topology, east, _west } = collision;
    east.kill();
    screen.shows(&["disconnected, showing state of", "UTC"]);
    screen.press(&["1"]);
    screen.shows(&["nothing is decided on what may be old"]);
    let _east = topology.serve("east");
    eventually("the inspector is connected again", || {
        let text = screen.text();
        let is_old = text.contains("disconnected") || text.contains("reading");
        if is_old { Err(text) } else { Ok(()) }
    });
    screen.decide("1", "resolved /name of cities/");
    screen.press(&["C-c"]);
    screen.shows(&["exit code 130", "isig icanon"]);
}

#[test]
fn a_small_terminal_and_a_signal_are_no_trouble() {
    if !has_tmux() {
        return;
    }
    let collision = Collision::make();
    let screen = collision.inspect(30, 7);
    screen.shows(&["cities/"]);
    for key in ["?", "?", "h", "Escape", "Tab", "Tab", "Tab", "Tab", "f", "f", "f", "f", "f"] {
        screen.press(&[key]);
    }
    screen.shows(&["conflicts · every state"]);
    let pid = collision.topology.path("inspector.pid");
    let script = format!("kill -s TERM $(cat {})", pid.display());
    assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
    screen.shows(&["exit code 130", "isig icanon"]);
}

#[test]
fn without_a_terminal_the_help_is_shown_and_without_a_node_the_reason() {
    let outcome = run(&["conflicts"]).exits(2).prints("");
    outcome.says(&["Usage: anabranch conflicts", "explain", "opens on a terminal only"]);
    if !has_tmux() {
        return;
    }
    let address = super::topology::free();
    let command = format!("{} conflicts --url http://{address}", program());
    let screen = Screen::open(80, 24, &command);
    screen.shows(&["error: cannot reach", "exit code 5"]);
}
