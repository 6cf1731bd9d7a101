//! `--help` of every command, as the program prints it.

use super::support::run;

/// Returns the subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names = listed.take_while(|line| line.starts_with("  ")).filter_map(|line| {
        // A description that wraps is indented more deeply than a name.
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then(|| name.to_owned())
    });
    names.collect()
}

/// Checks a command and everything below it, and returns the names of the leaves.
fn check(path: &[&str]) -> Vec<String> {
    let outcome = run(&[path, &["--help"]].concat()).exits(0).says(&[]);
    assert_eq!(outcome.stderr, "", "help that was asked for is data");
    let help = outcome.stdout;
    assert!(help.contains("Usage: anabranch"), "{path:?}: {help}");
    let children = subcommands(&help);
    if children.is_empty() {
        assert!(help.contains("Examples:\n  "), "{path:?} has no examples:\n{help}");
        return vec![path.join(" ")];
    }
    let children = children.iter().map(|child| check(&[path, &[child.as_str()]].concat()));
    children.collect::<Vec<_>>().concat()
}

#[test]
fn every_command_has_help_with_examples() {
    let expected = "serve, dev, pki init, pki issue, pki show, doc get, doc put, doc patch, \
                    doc delete, doc ls, doc history, doc diff, doc blame, doc revert, doc undelete, doc compact, doc purge, doc epochs, \
                    doc quarantine, \
                    conflicts list, conflicts show, conflicts watch, conflicts resolve, \
                    conflicts dismiss, conflicts reopen, conflicts undo, conflicts stats, \
                    conflicts explain, collections list, collections get, collections set, \
                    collections simulate, regions status, regions list, \
                    regions drain, regions undrain, regions leave, regions forget, verify, \
                    explain-divergence, import, export, bench";
    assert_eq!(check(&[]).join(", "), expected);
}

#[test]
fn the_exit_codes_are_in_the_help() {
    let help = run(&["--help"]).exits(0).stdout;
    let (_, codes) = help.split_once("Exit codes:\n").expect("exit codes");
    let codes: Vec<&str> =
        codes.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let is_code = |word: &&str| word.parse::<u8>().is_ok();
    let codes: Vec<&str> = codes.into_iter().filter(is_code).collect();
    assert_eq!(codes, ["0", "1", "2", "3", "4", "5", "6", "130"]);
}

#[test]
fn wrong_usage_exits_with_2_and_leaves_stdout_empty() {
    for (arguments, part) in [
        (&["doc", "gett", "a/b"][..], "similar subcommand exists: 'get'"),
        (&["doc", "get", "paris"], "collection/key"),
        (&["doc", "put", "a/b"], "required"),
        (&["doc", "put", "a/b", "{"], "this is no JSON"),
        (&["import", "x.jsonl", "--collection", "c"], "--key-field"),
        (&["conflicts", "show", "zz"], "hexadecimal"),
        (&["conflicts", "resolve", "3f", "--take", "1", "--state", "open"], "--all-matching"),
        (&["conflicts", "resolve", "--all-matching", "--take", "latest"], "needs a filter"),
        (&["conflicts", "dismiss", "--all-matching", "--state", "open", "3f"], "cannot be used"),
        (&["collections", "set", "cities"], "required"),
        (&["collections", "set", "cities", "--path", "/a=most"], "region-priority"),
        (&["doc", "revert", "a/b", "yesterday"], "2h, 3d"),
        (&["serve", "--region", "x"], "--data"),
        (&["regions", "status", "--url", "https://a"], "plain http"),
        (&["--log", "a=b=c", "regions", "status"], "bad log filter"),
        (&[], "Usage"),
    ] {
        run(arguments).exits(2).prints("").says(&[part]);
    }
}
