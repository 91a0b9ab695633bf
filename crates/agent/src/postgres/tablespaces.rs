//! Tablespaces: their places on volumes, and what a primary makes of the directive.
//!
//! A tablespace's place stands in WAL. A standby replays that it was made only where the same place
//! is there, so every agent makes the places first, and a primary makes tablespaces only when it is
//! told that all have them (docs/decisions/tablespaces.md).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use matriarch_api::instance::{Tablespace, TablespaceReport};

use super::data;
use super::server::OBSERVATION_LIMIT;
use super::sql::{self, Session, identifier, literal};
use crate::options::TablespacePlace;
use crate::root::Root;

/// How long making one may take.
const LIMIT: Duration = Duration::from_secs(60);

/// Names of the tablespaces that have a volume in this pod.
#[must_use]
pub fn mounted(root: &Root) -> Vec<String> {
    let entries = std::fs::read_dir(root.tablespaces()).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// A tablespace of a data directory: a link in its `pg_tblspc`, and where it leads to. Those within
/// the data directory have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The link.
    pub link: PathBuf,
    /// What it says.
    pub target: PathBuf,
}

/// The tablespaces of a data directory that lie outside of it.
#[must_use]
pub fn links(directory: &Path) -> Vec<Link> {
    let entries = std::fs::read_dir(directory.join("pg_tblspc")).into_iter().flatten().flatten();
    let mut found: Vec<Link> = entries
        .filter_map(|entry| {
            let link = entry.path();
            let target = std::fs::read_link(&link).ok()?;
            Some(Link { link, target })
        })
        .collect();
    found.sort_by(|one, other| one.link.cmp(&other.link));
    found
}

/// A tablespace of PGDATA of which nothing is there: its volume is a new one, or none.
#[must_use]
pub fn missing(root: &Root) -> Option<PathBuf> {
    let gone = |target: &PathBuf| {
        let outcome = std::fs::symlink_metadata(target);
        target.starts_with(root.tablespaces())
            && outcome.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
    };
    links(&root.pgdata()).into_iter().map(|link| link.target).find(gone)
}

/// Makes the places of tablespaces on all volumes that this pod has of them. That of one whose data
/// should be there already is not made: it would look as if nothing were missing.
///
/// # Errors
/// As the system says.
pub fn prepare(root: &Root) -> Result<(), data::Error> {
    let had: Vec<PathBuf> = links(&root.pgdata()).into_iter().map(|link| link.target).collect();
    let places = mounted(root).into_iter().map(|name| root.tablespace(&name));
    for place in places.filter(|place| !had.contains(place) && !place.is_dir()) {
        data::make_directory(&place)?;
    }
    Ok(())
}

/// What a primary has to do for one tablespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    None,
    /// Make it.
    Create,
    /// Give it to another owner.
    Own,
    /// It waits for the other instances.
    Wait,
    /// It cannot be as it should be.
    Refuse(String),
}

/// A tablespace that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Who owns it.
    pub owner: String,
    /// Where it is, as PostgreSQL says; within the data directory if relative.
    pub location: String,
}

/// Decides for one tablespace. `place` is where it should be; none: within the data directory.
#[must_use]
pub fn decide(
    wanted: &Tablespace,
    present: Option<&Present>,
    owner_exists: bool,
    place: Option<&Path>,
) -> Step {
    let no_owner = || Step::Refuse(format!("there is no role {}", wanted.owner));
    match present {
        None if !wanted.create => Step::Wait,
        None if !owner_exists => no_owner(),
        None => Step::Create,
        Some(found) if place.is_some_and(|place| Path::new(&found.location) != place) => {
            Step::Refuse(format!("there is one of this name at {:?}", found.location))
        }
        Some(found) if found.owner == wanted.owner => Step::None,
        Some(_) if !owner_exists => no_owner(),
        Some(_) => Step::Own,
    }
}

/// What there is on a server: tablespaces by name, and which of the wanted owners are roles.
async fn look(
    session: &Session,
    wanted: &[Tablespace],
) -> Result<(BTreeMap<String, Present>, Vec<String>), sql::Error> {
    let statement = "SELECT spcname, pg_get_userbyid(spcowner), pg_tablespace_location(oid) \
        FROM pg_tablespace";
    let text = |row: &[Option<String>], index: usize| row.get(index).cloned().flatten();
    let rows = session.rows(statement, OBSERVATION_LIMIT).await?;
    let present = rows.iter().filter_map(|row| {
        let (owner, location) = (text(row, 1)?, text(row, 2).unwrap_or_default());
        Some((text(row, 0)?, Present { owner, location }))
    });
    let present = present.collect();
    let owners: Vec<String> = wanted.iter().map(|it| literal(&it.owner)).collect();
    let statement = format!("SELECT rolname FROM pg_roles WHERE rolname IN ({})", owners.join(","));
    let rows = session.rows(&statement, OBSERVATION_LIMIT).await?;
    Ok((present, rows.iter().filter_map(|row| text(row, 0)).collect()))
}

/// Makes the tablespaces of a primary what they should be, one after the other; what is wrong with
/// one keeps no other back.
///
/// # Errors
/// If the server does not answer.
pub async fn keep(
    session: &Session,
    root: &Root,
    at: TablespacePlace,
    wanted: &[Tablespace],
) -> Result<Vec<TablespaceReport>, sql::Error> {
    let (present, roles) = look(session, wanted).await?;
    let mut reports = Vec::new();
    for one in wanted {
        let place = match at {
            TablespacePlace::Volumes => Some(root.tablespace(&one.name)),
            TablespacePlace::DataDirectory => None,
        };
        let found = present.get(&one.name);
        let step = decide(one, found, roles.contains(&one.owner), place.as_deref());
        let outcome = match &step {
            Step::Create => create(session, one, place.as_deref()).await,
            Step::Own => own(session, one).await,
            Step::None | Step::Wait | Step::Refuse(_) => Ok(()),
        };
        let error = match (&step, outcome) {
            (Step::Refuse(why), _) => Some(why.clone()),
            (_, Err(error)) if error.is_refusal() => Some(error.to_string()),
            (_, Err(error)) => return Err(error),
            (_, Ok(())) => None,
        };
        let reconciled = error.is_none() && step != Step::Wait;
        let owner = match &step {
            Step::Create | Step::Own if reconciled => Some(one.owner.clone()),
            Step::Create | Step::Own | Step::None | Step::Wait | Step::Refuse(_) => {
                found.map(|found| found.owner.clone())
            }
        };
        reports.push(TablespaceReport {
            name: one.name.clone(),
            ready: is_ready(root, at, &one.name),
            reconciled,
            owner,
            error,
        });
    }
    Ok(reports)
}

/// True if PostgreSQL can make it here, or replay that.
#[must_use]
pub fn is_ready(root: &Root, at: TablespacePlace, name: &str) -> bool {
    match at {
        TablespacePlace::Volumes => root.tablespace(name).is_dir(),
        TablespacePlace::DataDirectory => true,
    }
}

async fn create(
    session: &Session,
    wanted: &Tablespace,
    place: Option<&Path>,
) -> Result<(), sql::Error> {
    tracing::info!(tablespace = wanted.name, "makes the tablespace");
    let location = place.map_or(String::new(), |place| place.to_string_lossy().into_owned());
    let statement = format!(
        "CREATE TABLESPACE {} OWNER {} LOCATION {}",
        identifier(&wanted.name),
        identifier(&wanted.owner),
        literal(&location)
    );
    session.execute(&statement, LIMIT).await
}

async fn own(session: &Session, wanted: &Tablespace) -> Result<(), sql::Error> {
    let statement = format!(
        "ALTER TABLESPACE {} OWNER TO {}",
        identifier(&wanted.name),
        identifier(&wanted.owner)
    );
    session.execute(&statement, LIMIT).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(create: bool) -> Tablespace {
        Tablespace { name: "fast".to_owned(), owner: "app".to_owned(), create }
    }

    fn present(owner: &str, location: &str) -> Present {
        Present { owner: owner.to_owned(), location: location.to_owned() }
    }

    #[test]
    fn it_is_made_when_all_can_replay_it_and_its_owner_is_there() {
        let place = Path::new("/t/fast/data");
        assert_eq!(decide(&wanted(false), None, true, Some(place)), Step::Wait);
        assert_eq!(decide(&wanted(true), None, true, Some(place)), Step::Create);
        let why = Step::Refuse("there is no role app".to_owned());
        assert_eq!(decide(&wanted(true), None, false, Some(place)), why);
    }

    #[test]
    fn one_that_is_there_gets_its_owner_and_nothing_else() {
        let place = Path::new("/t/fast/data");
        let here = |owner: &str| present(owner, "/t/fast/data");
        // Also while it may not be made: it is there.
        assert_eq!(decide(&wanted(false), Some(&here("app")), true, Some(place)), Step::None);
        assert_eq!(decide(&wanted(true), Some(&here("postgres")), true, Some(place)), Step::Own);
        let refused = decide(&wanted(true), Some(&here("postgres")), false, Some(place));
        assert!(matches!(refused, Step::Refuse(_)));
        let elsewhere = present("app", "/elsewhere");
        let refused = decide(&wanted(true), Some(&elsewhere), true, Some(place));
        assert_eq!(refused, Step::Refuse("there is one of this name at \"/elsewhere\"".to_owned()));
        let inside = present("app", "pg_tblspc/16400");
        assert_eq!(decide(&wanted(true), Some(&inside), true, None), Step::None);
    }
}
