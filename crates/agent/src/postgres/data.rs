//! The data volume: what is on it, and how directories come and go.
//!
//! A data directory is made under another name and renamed when it is whole, so that a crash half
//! way is never taken for data. One that is no longer wanted is moved aside, never deleted: it may
//! hold the only copy of a commit. What was never whole, under its name of making, holds nothing
//! that anybody was told of, and is removed.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tablespaces;
use crate::root::Root;

/// What is in the place of PGDATA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Empty,
    /// A data directory.
    Data {
        /// From `PG_VERSION`.
        major: u32,
    },
    /// A data directory that pg_rewind was working on when it was interrupted.
    HalfRewound {
        /// From `PG_VERSION`.
        major: u32,
    },
    /// A data directory of which the content of a tablespace is not there: its volume was lost.
    /// PostgreSQL would start, and lack what was in there.
    WithoutTablespace {
        /// From `PG_VERSION`.
        major: u32,
        /// Where it should be.
        path: PathBuf,
    },
}

/// What is wrong with the volume.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation.
    #[error("cannot {operation} {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Something that is no data directory.
    #[error("{path} is there but is not a data directory of PostgreSQL: {why}; it is left alone")]
    Foreign {
        /// Where.
        path: String,
        /// What is missing.
        why: String,
    },
}

impl Error {
    /// True if the volume has no space left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            Self::File { source, .. } => source.kind() == ErrorKind::StorageFull,
            Self::Foreign { .. } => false,
        }
    }
}

fn file(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::File { operation, path, source }
}

/// Makes a directory that only its owner can read, and its parents.
///
/// # Errors
/// As the system says.
pub fn make_directory(path: &Path) -> Result<(), Error> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(file("make", path))
}

/// Writes a file in one piece: readers see the old or the new content, also after a crash.
///
/// # Errors
/// As the system says.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let write = || -> std::io::Result<()> {
        let mut out = fs::File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)?;
        // An older file of that name keeps its own mode.
        out.set_permissions(fs::Permissions::from_mode(0o600))?;
        out.write_all(content)?;
        out.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(file("write", path))?;
    path.parent().map_or(Ok(()), sync_directory)
}

/// Makes renames in a directory durable.
///
/// # Errors
/// As the system says.
pub fn sync_directory(path: &Path) -> Result<(), Error> {
    fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(file("sync", path))
}

/// Looks at the place of PGDATA.
///
/// # Errors
/// If it cannot be read or is no data directory: unknown is not absent.
pub fn look(root: &Root) -> Result<Found, Error> {
    let path = root.pgdata();
    match fs::read_dir(&path) {
        Ok(mut entries) => {
            if entries.next().is_none() {
                return Ok(Found::Empty);
            }
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Empty),
        Err(error) => return Err(file("read", &path)(error)),
    }
    let foreign =
        |why: &str| Error::Foreign { path: path.display().to_string(), why: why.to_owned() };
    let version = match fs::read_to_string(path.join("PG_VERSION")) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(foreign("it has no PG_VERSION"));
        }
        Err(error) => return Err(file("read", &path.join("PG_VERSION"))(error)),
    };
    if !path.join("global/pg_control").exists() {
        return Err(foreign("it has no global/pg_control"));
    }
    let major = version.trim().parse().map_err(|_| foreign("PG_VERSION is no number"))?;
    if rewind_mark(root).exists() {
        return Ok(Found::HalfRewound { major });
    }
    Ok(tablespaces::missing(root)
        .map_or(Found::Data { major }, |path| Found::WithoutTablespace { major, path }))
}

fn rewind_mark(root: &Root) -> PathBuf {
    root.state().join("rewinding")
}

/// Notes that pg_rewind begins or has ended well.
///
/// # Errors
/// As the system says.
pub fn mark_rewind(root: &Root, begun: bool) -> Result<(), Error> {
    let path = rewind_mark(root);
    if begun {
        return write_atomically(&path, b"pg_rewind works on pgdata\n");
    }
    remove_file(&path)?;
    sync_directory(&root.state())
}

/// Removes a file if it is there.
///
/// # Errors
/// As the system says.
pub fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(file("remove", path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Gives a file another name within its directory, for good.
///
/// # Errors
/// As the system says.
pub fn rename(path: &Path, to: &Path) -> Result<(), Error> {
    fs::rename(path, to).map_err(file("rename", path))?;
    to.parent().map_or(Ok(()), sync_directory)
}

/// An empty place to make a data directory in, what an interrupted attempt left removed.
///
/// # Errors
/// As the system says.
pub fn begin(root: &Root) -> Result<PathBuf, Error> {
    let path = root.pgdata_in_making();
    remove_unmade(&path)?;
    if root.wal_volume().is_dir() {
        remove_unmade(&wal_in_making(root))?;
    }
    for name in tablespaces::mounted(root) {
        remove_unmade(&root.tablespace_in_making(&name))?;
    }
    Ok(path)
}

/// Removes what an interrupted attempt left. Processes of it that were just killed may still make
/// a file in there.
fn remove_unmade(path: &Path) -> Result<(), Error> {
    for _ in 0..50 {
        match fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(error) => match error.kind() {
                ErrorKind::NotFound => return Ok(()),
                ErrorKind::DirectoryNotEmpty => std::thread::sleep(Duration::from_millis(20)),
                _ => return Err(file("remove", path)(error)),
            },
        }
    }
    fs::remove_dir_all(path).map_err(file("remove", path))
}

/// Where `pg_wal` of a directory in the making lies, if there is a WAL volume.
#[must_use]
pub fn wal_directory(root: &Root) -> Option<PathBuf> {
    root.wal_volume().is_dir().then(|| wal_in_making(root))
}

fn wal_in_making(root: &Root) -> PathBuf {
    root.wal_volume().join("pg_wal.new")
}

/// Gives a whole directory its name, with a new incarnation, the old one (if any) moved aside.
/// Returns where the old one is.
///
/// The order makes every crash harmless: a directory under the name of PGDATA always belongs to
/// the incarnation that is written down.
///
/// # Errors
/// As the system says.
pub fn complete(root: &Root, incarnation: &str) -> Result<Option<PathBuf>, Error> {
    let (made, pgdata) = (root.pgdata_in_making(), root.pgdata());
    let moved = move_aside(root)?;
    if root.wal_volume().is_dir() {
        let (wal, link) = (root.wal(), made.join("pg_wal"));
        if wal.is_dir() {
            // No data directory owns it: left by a crash between the two renames below.
            let left = root.wal_volume().join(format!("pg_wal.{}", stamp()));
            fs::rename(&wal, &left).map_err(file("rename", &wal))?;
        }
        fs::rename(wal_in_making(root), &wal).map_err(file("rename", &wal))?;
        relink(&link, &wal)?;
    }
    complete_tablespaces(root)?;
    remove_file(&rewind_mark(root))?;
    write_atomically(&incarnation_file(root), incarnation.as_bytes())?;
    // PGDATA may be there as an empty directory; rename takes its place.
    fs::rename(&made, &pgdata).map_err(file("rename", &pgdata))?;
    sync_directory(&root.volume())?;
    Ok(moved)
}

/// Gives the tablespaces of the directory in the making their places, or makes these for those that
/// are still to come.
fn complete_tablespaces(root: &Root) -> Result<(), Error> {
    for name in tablespaces::mounted(root) {
        let (made, place) = (root.tablespace_in_making(&name), root.tablespace(&name));
        // No data directory owns what is there: left by a crash, or by an earlier cluster.
        match fs::remove_dir(&place) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                let left = place.with_file_name(format!("data.{}", stamp()));
                fs::rename(&place, &left).map_err(file("rename", &place))?;
            }
            Err(error) => return Err(file("remove", &place)(error)),
        }
        if made.is_dir() {
            fs::rename(&made, &place).map_err(file("rename", &place))?;
        } else {
            make_directory(&place)?;
        }
        for link in tablespaces::links(&root.pgdata_in_making()) {
            if link.target == made {
                relink(&link.link, &place)?;
            }
        }
    }
    Ok(())
}

/// Moves the tablespaces of PGDATA aside on their volumes; its links go with them, so that it stays
/// whole wherever a crash interrupts this.
fn move_tablespaces_aside(root: &Root, name: &str) -> Result<(), Error> {
    let places: Vec<PathBuf> =
        tablespaces::mounted(root).iter().map(|name| root.tablespace(name)).collect();
    for link in tablespaces::links(&root.pgdata()) {
        if places.contains(&link.target) && link.target.is_dir() {
            let target = link.target.with_file_name(format!("data.{name}"));
            fs::rename(&link.target, &target).map_err(file("rename", &link.target))?;
            relink(&link.link, &target)?;
        }
    }
    Ok(())
}

fn relink(link: &Path, target: &Path) -> Result<(), Error> {
    remove_file(link)?;
    std::os::unix::fs::symlink(target, link).map_err(file("link", link))
}

/// Moves PGDATA, its WAL on the WAL volume and its tablespaces on theirs out of the way.
///
/// # Errors
/// As the system says.
pub fn move_aside(root: &Root) -> Result<Option<PathBuf>, Error> {
    let pgdata = root.pgdata();
    if !pgdata.join("PG_VERSION").exists() {
        return Ok(None);
    }
    make_directory(&root.aside())?;
    let name = stamp();
    let target = root.aside().join(&name);
    move_tablespaces_aside(root, &name)?;
    fs::rename(&pgdata, &target).map_err(file("rename", &pgdata))?;
    if root.wal().is_dir() {
        let wal = root.wal_volume().join(format!("pg_wal.{name}"));
        fs::rename(root.wal(), &wal).map_err(file("rename", &wal))?;
        relink(&target.join("pg_wal"), &wal)?;
    }
    sync_directory(&root.volume())?;
    Ok(Some(target))
}

fn stamp() -> String {
    jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ").to_string()
}

fn incarnation_file(root: &Root) -> PathBuf {
    root.state().join("incarnation")
}

/// The incarnation of the directory under the name of PGDATA.
///
/// # Errors
/// If it cannot be read.
pub fn incarnation(root: &Root) -> Result<Option<String>, Error> {
    let path = incarnation_file(root);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", &path)(error)),
    }
}

/// Writes the incarnation of a directory that has none: it was made by something else.
///
/// # Errors
/// As the system says.
pub fn adopt(root: &Root, incarnation: &str) -> Result<(), Error> {
    write_atomically(&incarnation_file(root), incarnation.as_bytes())
}

/// A new incarnation: 64 random bits, as 16 hexadecimal digits.
#[must_use]
pub fn new_incarnation() -> String {
    use rand::TryRngCore;
    let mut bytes = [0; 8];
    if rand::rngs::OsRng.try_fill_bytes(&mut bytes).is_err() {
        // The kernel's generator is always there; the thread's own is seeded from it.
        rand::RngCore::fill_bytes(&mut rand::rng(), &mut bytes);
    }
    crate::binary::hexadecimal(&bytes)
}

/// Data directories that were moved aside.
#[must_use]
pub fn kept(root: &Root) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(root.aside())
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("matriarch-data-{name}-{}", std::process::id()))
    }

    fn root(name: &str) -> Root {
        let root = Root::new(base(name));
        make_directory(&root.state()).unwrap();
        root
    }

    fn fill(path: &Path) {
        make_directory(&path.join("global")).unwrap();
        fs::write(path.join("PG_VERSION"), "15\n").unwrap();
        fs::write(path.join("global/pg_control"), "x").unwrap();
    }

    #[test]
    fn what_is_half_made_is_never_taken_for_data() {
        let root = root("half");
        fill(&begin(&root).unwrap());
        assert_eq!(look(&root).unwrap(), Found::Empty);
        assert!(!begin(&root).unwrap().exists());
        fs::remove_dir_all(base("half")).unwrap();
    }

    #[test]
    fn an_old_directory_is_moved_aside_and_the_new_one_has_a_new_incarnation() {
        let root = root("aside");
        fill(&begin(&root).unwrap());
        assert_eq!(complete(&root, "one").unwrap(), None);
        assert_eq!(look(&root).unwrap(), Found::Data { major: 15 });
        mark_rewind(&root, true).unwrap();
        assert_eq!(look(&root).unwrap(), Found::HalfRewound { major: 15 });
        fill(&begin(&root).unwrap());
        let moved = complete(&root, "two").unwrap().unwrap();
        assert!(moved.join("PG_VERSION").exists());
        assert_eq!(kept(&root), [moved]);
        assert_eq!(look(&root).unwrap(), Found::Data { major: 15 });
        assert_eq!(incarnation(&root).unwrap().as_deref(), Some("two"));
        fs::remove_dir_all(base("aside")).unwrap();
    }

    #[test]
    fn tablespaces_are_moved_aside_and_made_anew_with_their_directory() {
        let root = root("tablespaces");
        make_directory(&root.tablespaces().join("fast")).unwrap();
        let clone = |content: &str| {
            let made = begin(&root).unwrap();
            fill(&made);
            make_directory(&made.join("pg_tblspc")).unwrap();
            let place = root.tablespace_in_making("fast");
            make_directory(&place).unwrap();
            fs::write(place.join("content"), content).unwrap();
            std::os::unix::fs::symlink(&place, made.join("pg_tblspc/16400")).unwrap();
        };
        clone("one");
        assert_eq!(complete(&root, "one").unwrap(), None);
        let content = |directory: &Path| {
            fs::read_to_string(directory.join("pg_tblspc/16400/content")).unwrap()
        };
        assert_eq!(content(&root.pgdata()), "one");
        assert_eq!(
            fs::read_link(root.pgdata().join("pg_tblspc/16400")).unwrap(),
            root.tablespace("fast")
        );
        // A copy that was interrupted, and the next one.
        clone("half");
        clone("two");
        let moved = complete(&root, "two").unwrap().unwrap();
        assert_eq!(
            (content(&moved), content(&root.pgdata())),
            ("one".to_owned(), "two".to_owned())
        );
        assert_eq!(look(&root).unwrap(), Found::Data { major: 15 });

        // A new volume in the place of the tablespace's: nothing is made up for what was on it.
        fs::rename(root.tablespace("fast"), root.tablespaces().join("fast/gone")).unwrap();
        tablespaces::prepare(&root).unwrap();
        let path = root.tablespace("fast");
        assert_eq!(look(&root).unwrap(), Found::WithoutTablespace { major: 15, path });
        clone("three");
        assert!(complete(&root, "three").unwrap().is_some());
        assert_eq!(content(&root.pgdata()), "three");

        // A volume that comes later gets its place, also one that has held something before.
        for name in ["late", "used"] {
            make_directory(&root.tablespaces().join(name)).unwrap();
        }
        make_directory(&root.tablespace("used")).unwrap();
        fs::write(root.tablespace("used").join("old"), "x").unwrap();
        tablespaces::prepare(&root).unwrap();
        assert!(root.tablespace("late").is_dir() && root.tablespace("used").join("old").exists());
        fs::remove_dir_all(base("tablespaces")).unwrap();
    }

    #[test]
    fn something_else_in_the_place_of_data_is_left_alone() {
        let root = root("foreign");
        make_directory(&root.pgdata()).unwrap();
        assert_eq!(look(&root).unwrap(), Found::Empty);
        fs::write(root.pgdata().join("precious"), "x").unwrap();
        assert!(matches!(look(&root), Err(Error::Foreign { .. })));
        fs::remove_dir_all(base("foreign")).unwrap();
    }

    #[test]
    fn incarnations_differ() {
        assert_ne!(new_incarnation(), new_incarnation());
        assert_eq!(new_incarnation().len(), 16);
    }
}
