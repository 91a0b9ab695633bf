//! The file in which the agent prepares what the keeper starts as PostgreSQL.
//!
//! NUL-terminated entries, each with a letter in front: `D` data directory, `L` file for standard
//! error, `A` one per argument (the program first), `E` one per variable of the environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A program with everything that it is to be started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartFile {
    /// PGDATA: the processes of PostgreSQL are those that work in it.
    pub data_directory: PathBuf,
    /// What the program says before its own log is open; truncated at each start.
    pub standard_error: PathBuf,
    /// Program and arguments.
    pub arguments: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(OsString, OsString)>,
}

impl StartFile {
    /// Writes it in one piece.
    ///
    /// # Errors
    /// As the system says.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        let mut entry = |letter: u8, parts: &[&OsStr]| {
            bytes.push(letter);
            for part in parts {
                bytes.extend_from_slice(part.as_bytes());
            }
            bytes.push(0);
        };
        entry(b'D', &[self.data_directory.as_os_str()]);
        entry(b'L', &[self.standard_error.as_os_str()]);
        for argument in &self.arguments {
            entry(b'A', &[argument]);
        }
        for (name, value) in &self.environment {
            entry(b'E', &[name, OsStr::new("="), value]);
        }
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, bytes)?;
        std::fs::rename(&temporary, path)
    }

    /// Reads it; none if it is not whole.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        let bytes = std::fs::read(path).ok()?;
        let mut file = Self::default();
        for entry in bytes.strip_suffix(&[0])?.split(|byte| *byte == 0) {
            let (letter, rest) = entry.split_first()?;
            let value = OsString::from_vec(rest.to_vec());
            match letter {
                b'D' => file.data_directory = value.into(),
                b'L' => file.standard_error = value.into(),
                b'A' => file.arguments.push(value),
                b'E' => {
                    let at = rest.iter().position(|byte| *byte == b'=')?;
                    let (name, value) = (rest.get(..at)?, rest.get(at + 1..)?);
                    file.environment.push((
                        OsString::from_vec(name.to_vec()),
                        OsString::from_vec(value.to_vec()),
                    ));
                }
                _ => return None,
            }
        }
        let absolute = file.arguments.first().is_some_and(|it| Path::new(it).is_absolute());
        (absolute && file.data_directory.is_absolute() && file.standard_error.is_absolute())
            .then_some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_file_is_read_as_it_was_written_and_a_broken_one_is_refused() {
        let path = std::env::temp_dir().join(format!("matriarch-start-{}", std::process::id()));
        let file = StartFile {
            data_directory: "/data".into(),
            standard_error: "/log/error".into(),
            arguments: vec!["/bin/postgres".into(), "-c".into(), "a=b c".into()],
            environment: vec![("A".into(), "x=y".into())],
        };
        file.write(&path).unwrap();
        assert_eq!(StartFile::read(&path), Some(file));
        std::fs::write(&path, b"D/data\0Arelative\0").unwrap();
        assert_eq!(StartFile::read(&path), None);
        std::fs::write(&path, b"D/da").unwrap();
        assert_eq!(StartFile::read(&path), None);
        std::fs::remove_file(&path).unwrap();
    }
}
