//! `anabranch pki`: the cluster's authority and the certificates of nodes and clients.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anabranch_crdt::ids::{ClusterId, RegionName};
use clap::{Args, Subcommand};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Error, ErrorKind};
use crate::pki::{
    Authority, CertificateSummary, ClientName, Issued, LEAF_DAYS, Overwrite, PkiError, Validity,
};

/// Makes and shows certificates.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PkiArgs {
    #[command(subcommand)]
    command: PkiCommand,
}

#[derive(Debug, Subcommand)]
enum PkiCommand {
    /// Makes the authority of a cluster: ca.pem for every node, ca.key to be kept safe
    Init(InitArgs),
    /// Issues the certificate and the key of a region's node, or of an offline-first client
    Issue(IssueArgs),
    /// Shows whom a certificate names, until when, and who signed it
    Show(ShowArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anabranch pki init --cluster-id 6f1c1d1e-7b0a-4c55-9d5f-1f6f0c7d2a10
  anabranch pki init --cluster-id \"$(uuidgen)\" --name shop --dir /etc/anabranch/pki

The id is that of the [cluster] section of regions.toml.")]
struct InitArgs {
    /// The id of the cluster, a UUID
    #[arg(long, env = "ANABRANCH_CLUSTER_ID", value_name = "UUID")]
    cluster_id: ClusterId,
    /// The name of the cluster, for people
    #[arg(long, default_value = "anabranch")]
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anabranch pki issue --region eu-west
  anabranch pki issue --region eu-west --force       a new one, before the old one expires
  anabranch pki issue --client laptop --days 90")]
struct IssueArgs {
    /// The region whose node the certificate is for
    #[arg(long, required_unless_present = "client", conflicts_with = "client")]
    region: Option<RegionName>,
    /// The client that the certificate is for, instead of a region
    #[arg(long, value_name = "NAME")]
    client: Option<ClientName>,
    /// Days until the certificate expires
    #[arg(long, default_value_t = LEAF_DAYS, value_parser = clap::value_parser!(i64).range(1..=3650))]
    days: i64,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Debug, Args)]
struct OutputArgs {
    /// The directory of the certificates
    #[arg(long, default_value = "pki", env = "ANABRANCH_PKI_DIR")]
    dir: PathBuf,
    /// Replaces files that exist
    #[arg(long)]
    force: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  anabranch pki show pki/eu-west.pem")]
struct ShowArgs {
    /// A certificate in PEM
    file: PathBuf,
}

/// Runs the subcommand.
///
/// # Errors
/// Names the file and the cure.
pub fn run(args: PkiArgs) -> Result<(), Error> {
    let lines = match args.command {
        PkiCommand::Init(args) => init(&args),
        PkiCommand::Issue(args) => issue(&args),
        PkiCommand::Show(args) => show(&args.file),
    }?;
    print(&lines)
}

impl OutputArgs {
    fn overwrite(&self) -> Overwrite {
        if self.force { Overwrite::Replace } else { Overwrite::Refuse }
    }
}

fn init(args: &InitArgs) -> Result<Vec<String>, Error> {
    let authority = Authority::create(args.cluster_id, &args.name)?;
    authority.store(&args.output.dir, args.output.overwrite())?;
    Ok(["ca.pem", "ca.key"].map(|file| args.output.dir.join(file).display().to_string()).into())
}

fn issue(args: &IssueArgs) -> Result<Vec<String>, Error> {
    let authority = Authority::load(&args.output.dir)?;
    let issued = issue_for(&authority, args)?;
    let (certificate, key) = issued.store(&args.output.dir, args.output.overwrite())?;
    Ok([certificate, key].map(|file| file.display().to_string()).into())
}

fn issue_for(authority: &Authority, args: &IssueArgs) -> Result<Issued, Error> {
    let validity = Validity::days(args.days);
    match (&args.region, &args.client) {
        (Some(region), _) => Ok(authority.issue_node(region, validity)?),
        (None, Some(client)) => Ok(authority.issue_client(client, validity)?),
        (None, None) => Err(Error::new(
            ErrorKind::Invalid,
            "no_subject",
            "name whom the certificate is for: --region NAME or --client NAME",
        )),
    }
}

fn show(file: &Path) -> Result<Vec<String>, Error> {
    let summary = CertificateSummary::of_file(file)?;
    Ok(describe(&summary, OffsetDateTime::now_utc()))
}

fn describe(summary: &CertificateSummary, now: OffsetDateTime) -> Vec<String> {
    let validity = summary.validity;
    let days = (validity.not_after - now).whole_days();
    let state = if now > validity.not_after {
        "expired".to_owned()
    } else if now < validity.not_before {
        "not valid yet".to_owned()
    } else {
        format!("valid for {days} more days")
    };
    vec![
        format!("identity    {}", summary.subject),
        format!("issuer      {}", summary.issuer),
        format!("not before  {}", timestamp(validity.not_before)),
        format!("not after   {} ({state})", timestamp(validity.not_after)),
    ]
}

fn timestamp(moment: OffsetDateTime) -> String {
    moment.format(&Rfc3339).unwrap_or_else(|_| moment.to_string())
}

fn print(lines: &[String]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    lines.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(|cause| {
        PkiError::Io { action: "write", file: PathBuf::from("standard output"), cause }.into()
    })
}

const EXAMPLES: &str = "\
Examples:
  anabranch pki init --cluster-id 6f1c1d1e-7b0a-4c55-9d5f-1f6f0c7d2a10 --dir pki
  anabranch pki issue --region eu-west --dir pki
  anabranch pki issue --client laptop --dir pki --days 90
  anabranch pki show pki/eu-west.pem

Nodes need ca.pem and their own two files. Keep ca.key away from them: who has it can join.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        pki: PkiArgs,
    }

    fn check(arguments: &[&str]) -> Result<String, String> {
        let program = Program::try_parse_from([&["pki"], arguments].concat());
        let lines = match program.map_err(|e| e.to_string())?.pki.command {
            PkiCommand::Init(args) => init(&args),
            PkiCommand::Issue(args) => issue(&args),
            PkiCommand::Show(args) => show(&args.file),
        };
        lines.map(|lines| lines.join("\n")).map_err(|e| e.to_string())
    }

    #[test]
    fn a_cluster_gets_its_files_once() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("pki");
        let dir = dir.to_str().unwrap();
        let id = "6f1c1d1e-7b0a-4c55-9d5f-1f6f0c7d2a10";
        let missing = check(&["issue", "--region", "eu-west", "--dir", dir]).unwrap_err();
        assert!(missing.contains("ca.pem is missing") && missing.contains("pki init"), "{missing}");

        check(&["init", "--cluster-id", id, "--dir", dir]).unwrap();
        let files = check(&["issue", "--region", "eu-west", "--dir", dir]).unwrap();
        assert_eq!(files, format!("{dir}/eu-west.pem\n{dir}/eu-west.key"));
        check(&["issue", "--client", "laptop", "--dir", dir]).unwrap();
        let shown = check(&["show", &format!("{dir}/eu-west.pem")]).unwrap();
        assert!(shown.contains(&format!("anabranch://{id}/region/eu-west")), "{shown}");
        assert!(shown.contains("valid for 364 more days"), "{shown}");
        let shown = check(&["show", &format!("{dir}/laptop.pem")]).unwrap();
        assert!(shown.contains(&format!("anabranch://{id}/client/laptop")), "{shown}");

        let again = check(&["issue", "--region", "eu-west", "--dir", dir]).unwrap_err();
        assert!(again.contains("eu-west.pem exists") && again.contains("--force"), "{again}");
        check(&["issue", "--region", "eu-west", "--dir", dir, "--force"]).unwrap();
    }

    #[test]
    fn wrong_arguments_are_refused() {
        check(&["init", "--cluster-id", "seven"]).unwrap_err();
        check(&["issue"]).unwrap_err();
        check(&["issue", "--region", "a", "--client", "b"]).unwrap_err();
        check(&["issue", "--region", "a", "--days", "0"]).unwrap_err();
        check(&["issue", "--region", "../a"]).unwrap_err();
    }

    #[test]
    fn a_summary_tells_how_long_it_lasts() {
        let summary = CertificateSummary {
            subject: "anabranch://6f1c1d1e-7b0a-4c55-9d5f-1f6f0c7d2a10/region/eu".parse().unwrap(),
            issuer: "CN=x".into(),
            validity: Validity::days(30),
        };
        let at = |days| describe(&summary, OffsetDateTime::now_utc() + time::Duration::days(days));
        assert!(at(0)[3].contains("valid for 29 more days"), "{:?}", at(0));
        assert!(at(31)[3].contains("expired"));
        assert!(at(-1)[3].contains("not valid yet"));
    }
}
