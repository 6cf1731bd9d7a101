//! Arguments: what is taken, what is refused, and what `--help` promises.

use clap::{CommandFactory, Parser};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("anabranch").chain(line.split_whitespace()))
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn commands_as_the_examples_write_them_are_taken() {
    for line in [
        "serve --config r.toml --region eu-west --data d --http 127.0.0.1:0 --cache 64MiB",
        "dev --wan --fresh --data d --log debug --log-format json",
        "doc get cities/paris --token t",
        "doc put cities/fr/paris {} --if-match *",
        "doc put cities/paris --file p.json -o json",
        "doc patch cities/paris --type edits -",
        "doc delete cities/paris",
        "doc ls cities --prefix fr/ --limit 3 --values -o json",
        "conflicts list --collection c --document c/d --state auto-resolved --limit 5 --exit-code",
        "conflicts show 3f2a -o json",
        "conflicts resolve 3f2a --take 2 --note why",
        "conflicts resolve 3f2a --value 7 --url http://127.0.0.1:3032",
        "regions status --timeout 2s",
        "import f.jsonl --collection c --key-field /meta/id --requests 4 --keep-going --dry-run",
        "import - --collection c --key-field id",
        "export --collection c -o out.jsonl --values",
        "bench --connections 8 --seconds 1 --only updates,reads -o json",
        "bench --url 127.0.0.1:3031 --url-b 127.0.0.1:3032",
    ] {
        parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    }
}

#[test]
fn wrong_arguments_exit_with_2_and_say_why() {
    for (line, part) in [
        ("", "Usage"),
        ("srve", "similar subcommand exists: 'serve'"),
        ("serve --region a --data d --cache 5", "at least 1MiB"),
        ("serve --region a --data d --http localhost", "invalid socket address"),
        ("doc get paris", "write collection/key"),
        ("doc put c/k", "required"),
        ("doc put c/k {} --file f", "cannot be used with"),
        ("doc ls cities --url https://a", "plain http"),
        ("conflicts resolve 3f", "required"),
        ("conflicts resolve 3f --take 1 --value 2", "cannot be used with"),
        ("conflicts resolve 3f --value paris", "double quotes"),
        ("conflicts list --state closed", "possible values: open, auto-resolved, resolved"),
        ("regions status --timeout 5", "no unit"),
        ("import f --collection c --key-field /a~2", "JSON pointer"),
        ("import f --collection c --key-field id --requests 0", "1..=256"),
        ("bench --url-b 127.0.0.1:1", "--url <URL>"),
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(part), "{line}: expected {part:?} in\n{error}");
    }
}

#[test]
fn help_has_exit_codes_and_every_command_has_examples() {
    let help = Cli::command().render_long_help().to_string();
    for failure in [
        Failure::General(String::new()),
        Failure::Usage(String::new()),
        Failure::NotFound(String::new()),
        Failure::ConflictsPresent,
        Failure::Differs,
        Failure::Unreachable(String::new()),
        Failure::Interrupted,
    ] {
        assert!(help.contains(&format!("\n  {:<5}", failure.code())), "{failure:?}: {help}");
    }
    check_examples(&Cli::command());
}

fn check_examples(command: &clap::Command) {
    if command.get_subcommands().next().is_none() {
        let name = command.get_name();
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.contains("Examples:"), "{name} has no examples");
    }
    command.get_subcommands().for_each(check_examples);
}

#[test]
fn errors_of_the_store_have_the_exit_code_of_their_kind() {
    use crate::error::{Error, ErrorKind};
    for (kind, code) in [
        (ErrorKind::Invalid, 1),
        (ErrorKind::NotFound, 3),
        (ErrorKind::Unavailable, 5),
        (ErrorKind::Stale, 5),
        (ErrorKind::Corrupt, 1),
    ] {
        let failure = Failure::from(Error::new(kind, "code", "message").with_source("the cause"));
        assert_eq!(failure.code(), code, "{kind:?}");
        assert_eq!(failure.to_string(), "message: the cause");
    }
}
