//! The operating system's user that containers run as, read from /etc/passwd directly: the C
//! library's lookups crash static binaries in foreign images (traps P2).

use std::io;
use std::path::{Path, PathBuf};

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Number of the main group.
    pub gid: u32,
    /// Home directory.
    pub home: PathBuf,
}

/// Whose rights containers get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// Ours.
    Same(User),
    /// We are root, and they are not.
    Dropped(User),
}

/// What goes wrong when the user is chosen.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// /etc/passwd cannot be read.
    #[error("cannot read the list of users in /etc/passwd")]
    Read(#[source] io::Error),
    /// No such user.
    #[error(
        "there is no user {0} on this machine: PostgreSQL refuses to run as root, so make one \
         (adduser --system --group {0}) or name another with --user NAME"
    )]
    NoSuchUser(String),
    /// The user is root, which PostgreSQL refuses.
    #[error("PostgreSQL refuses to run as root: name another user with --user NAME")]
    Root,
    /// An ordinary user cannot become another.
    #[error("only root can run the databases as another user; leave --user away or use sudo")]
    NotRoot,
    /// Our own number is in no line of /etc/passwd.
    #[error("user number {0} is not in /etc/passwd, and PostgreSQL needs its name")]
    Nameless(u32),
}

impl RunAs {
    /// Chooses: as root the user named, `postgres` by default; else ourselves.
    pub fn choose(wanted: Option<&str>) -> Result<Self, UserError> {
        let passwd = std::fs::read_to_string("/etc/passwd").map_err(UserError::Read)?;
        Self::choose_from(&passwd, rustix::process::geteuid().as_raw(), wanted)
    }

    fn choose_from(passwd: &str, own: u32, wanted: Option<&str>) -> Result<Self, UserError> {
        let users: Vec<User> = passwd.lines().filter_map(parse).collect();
        if own == 0 {
            let name = wanted.unwrap_or("postgres");
            let user = users
                .into_iter()
                .find(|user| user.name == name)
                .ok_or_else(|| UserError::NoSuchUser(name.to_owned()))?;
            return if user.uid == 0 { Err(UserError::Root) } else { Ok(Self::Dropped(user)) };
        }
        let user =
            users.into_iter().find(|user| user.uid == own).ok_or(UserError::Nameless(own))?;
        match wanted {
            Some(name) if name != user.name => Err(UserError::NotRoot),
            Some(_) | None => Ok(Self::Same(user)),
        }
    }

    /// The user.
    #[must_use]
    pub fn user(&self) -> &User {
        match self {
            Self::Same(user) | Self::Dropped(user) => user,
        }
    }

    /// Gives `path` to the user, where that is not us; a symbolic link itself, not its target.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        match self {
            Self::Same(_) => Ok(()),
            Self::Dropped(user) => std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)),
        }
    }
}

fn parse(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = PathBuf::from(fields.nth(1)?);
    Some(User { name, uid, gid, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n\
        eve:x:1000:1000::/home/eve:/bin/sh\n";

    #[test]
    fn root_drops_to_postgres_or_the_user_named() {
        let RunAs::Dropped(user) = RunAs::choose_from(PASSWD, 0, None).unwrap() else {
            panic!("root must drop its rights")
        };
        assert_eq!((user.uid, user.gid), (101, 104));
        assert_eq!(user.home, PathBuf::from("/var/lib/postgresql"));
        assert_eq!(RunAs::choose_from(PASSWD, 0, Some("eve")).unwrap().user().uid, 1000);
        assert!(matches!(RunAs::choose_from(PASSWD, 0, Some("root")), Err(UserError::Root)));
        assert!(matches!(
            RunAs::choose_from(PASSWD, 0, Some("nobody")),
            Err(UserError::NoSuchUser(_))
        ));
    }

    #[test]
    fn an_ordinary_user_stays_what_it_is() {
        assert_eq!(RunAs::choose_from(PASSWD, 1000, None).unwrap().user().name, "eve");
        assert!(matches!(
            RunAs::choose_from(PASSWD, 1000, Some("postgres")),
            Err(UserError::NotRoot)
        ));
        assert!(matches!(RunAs::choose_from(PASSWD, 7, None), Err(UserError::Nameless(7))));
    }
}
