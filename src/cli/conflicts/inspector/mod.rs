//! `anabranch conflicts` on a terminal: a screen that shows the ledger live and settles conflicts.
//!
//! The model is pure and has all decisions in it; here is the shell around it, which owns the
//! terminal, the tasks that talk to the node, and the signals.

mod editor;
mod line;
mod model;
mod remote;
mod screen;
mod view;

use std::collections::VecDeque;
use std::io::{self, IsTerminal};
use std::mem::discriminant;

use clap::CommandFactory;
use crossterm::event::EventStream;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use self::model::{Command, Editing, Event, Key, Model, Quit};
use self::remote::Request;
use self::screen::Screen;
use super::filter::LiveFilterArgs;
use super::row::Row;
use super::stream::Subscription;
use crate::cli::http::{Client, NodeArgs};
use crate::cli::output::note;
use crate::cli::signals::Signals;
use crate::cli::writing::WritingArgs;
use crate::cli::{Cli, Failure};

/// Where the inspector looks, and whose name it signs with.
#[derive(Debug, clap::Args)]
pub(super) struct InspectorArgs {
    #[command(flatten)]
    author: WritingArgs,

    #[command(flatten)]
    node: NodeArgs,
}

/// Opens the inspector, or shows the help where there is no terminal.
///
/// # Errors
/// `HelpShown` without a terminal, `Unreachable` without a node, `Interrupted` by a signal.
pub(super) async fn run(args: InspectorArgs) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        note(help());
        return Err(Failure::HelpShown);
    }
    let mut signals = Signals::install()?;
    let mut client = Client::new(&args.node);
    // The stream comes first: what changes after the list was read is told by it.
    let mut subscription = Subscription::new(&args.node, &LiveFilterArgs::default());
    let begin = async {
        subscription.connect().await?;
        remote::list(&mut client, None).await
    };
    let listing = tokio::select! {
        listing = begin => listing?,
        () = signals.next() => return Err(Failure::Interrupted),
    };
    let editor = ["VISUAL", "EDITOR"].into_iter().find_map(|name| std::env::var(name).ok());
    let editor = editor.filter(|editor| !editor.trim().is_empty());
    let editing = if editor.is_some() { Editing::External } else { Editing::Inline };
    let model = Model::new(args.node.url.to_string(), editing, listing);

    let (events, heard) = mpsc::channel(EVENTS);
    let (requests, asked) = mpsc::channel(REQUESTS);
    let mut tasks = JoinSet::new();
    tasks.spawn(remote::follow(subscription, events.clone()));
    tasks.spawn(remote::answer(client, args.author.or_account(), asked, events));
    let screen = Screen::open()?;
    let shell = Shell {
        model,
        screen,
        requests,
        waiting: VecDeque::new(),
        editor: editor.unwrap_or_default(),
        edits: JoinSet::new(),
    };
    shell.run(heard, tasks, signals).await
}

fn help() -> String {
    let mut command = Cli::command();
    // Only then the parts know what they are parts of.
    command.build();
    let help = command.find_subcommand_mut("conflicts").map(|conflicts| conflicts.render_help());
    let help = help.map(|help| help.to_string()).unwrap_or_default();
    format!("{}\n\nThe inspector opens on a terminal only.", help.trim_end())
}

/// What the shell owns.
struct Shell {
    model: Model,
    screen: Screen,
    requests: mpsc::Sender<Request>,
    /// Requests that were not handed over yet, one of each kind at most: of reads only the latest
    /// matters, and there is never more than one decision on its way.
    waiting: VecDeque<Request>,
    editor: String,
    /// An editor that is open; it has the terminal.
    edits: JoinSet<Event>,
}

impl Shell {
    async fn run(
        mut self,
        mut heard: mpsc::Receiver<Event>,
        mut tasks: JoinSet<Result<(), Failure>>,
        mut signals: Signals,
    ) -> Result<(), Failure> {
        let mut keys = Some(EventStream::new());
        loop {
            if self.edits.is_empty() {
                self.screen.draw(&self.model)?;
            }
            let event = tokio::select! {
                key = next_key(&mut keys) => match key? {
                    Some(key) => Event::Key(key),
                    // A new size of the terminal, for example: the screen is drawn again.
                    None => continue,
                },
                Some(event) = heard.recv() => event,
                Some(edited) = self.edits.join_next() => {
                    self.screen.come_back()?;
                    keys = Some(EventStream::new());
                    edited.map_err(|error| broken(&error))?
                }
                Some(ended) = tasks.join_next() => {
                    ended.map_err(|error| broken(&error))??;
                    continue;
                }
                Ok(place) = self.requests.reserve(), if !self.waiting.is_empty() => {
                    if let Some(request) = self.waiting.pop_front() {
                        place.send(request);
                    }
                    continue;
                }
                () = signals.next() => return Err(Failure::Interrupted),
            };
            let mut commands = self.model.update(event);
            // What has come already is taken in before the screen is drawn again.
            while let Ok(event) = heard.try_recv() {
                commands.extend(self.model.update(event));
            }
            for command in commands {
                match command {
                    Command::Quit(Quit::Asked) => return Ok(()),
                    Command::Quit(Quit::Interrupted) => return Err(Failure::Interrupted),
                    Command::Edit { row, text } => {
                        // Both would read the keyboard.
                        keys = None;
                        self.open_editor(row, text);
                    }
                    Command::List { state, ticket } => self.ask(Request::List { state, ticket }),
                    Command::Load { id, ticket } => self.ask(Request::Load { id, ticket }),
                    Command::Act { row, act } => self.ask(Request::Act { row, act }),
                    Command::History(document) => self.ask(Request::History(document)),
                }
            }
        }
    }

    fn ask(&mut self, request: Request) {
        let kind = discriminant(&request);
        self.waiting.retain(|waiting| discriminant(waiting) != kind);
        self.waiting.push_back(request);
    }

    fn open_editor(&mut self, row: Box<Row>, text: String) {
        self.screen.leave();
        let editor = self.editor.clone();
        self.edits.spawn_blocking(move || {
            let text = editor::edit(&editor, &text);
            Event::Edited { row, text }
        });
    }
}

/// Waits for the next key; without a keyboard, for ever.
async fn next_key(keys: &mut Option<EventStream>) -> Result<Option<Key>, Failure> {
    let Some(keys) = keys else { return std::future::pending().await };
    match keys.next().await {
        Some(Ok(input)) => Ok(screen::key(&input)),
        Some(Err(error)) => Err(Failure::General(format!("cannot read keys: {error}"))),
        None => Err(Failure::Interrupted),
    }
}

fn broken(error: &JoinError) -> Failure {
    Failure::General(format!("the inspector broke off: {error}"))
}

/// Events that wait for the screen: a burst fits, and what is more makes the node wait.
const EVENTS: usize = 64;

/// Requests that wait for the node.
const REQUESTS: usize = 4;
