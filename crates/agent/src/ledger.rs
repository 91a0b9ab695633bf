//! The ledger's file: two preallocated slots on the data volume, so that a full disk cannot block
//! a write and a torn write leaves the other slot (traps H14).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use matriarch_plan::protocol::ledger::{Ledger, LedgerError, SLOT_BYTES, newest};

use crate::root::Root;

/// What is wrong with the ledger.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file.
    #[error("cannot {operation} the ledger at {path}")]
    File {
        /// What was tried.
        operation: &'static str,
        /// Where.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Its content. What was promised is not known, so the instance must not take part.
    #[error("the ledger at {path} is damaged")]
    Content {
        /// Where.
        path: String,
        /// How.
        #[source]
        source: LedgerError,
    },
    /// It does not fit.
    #[error("the ledger cannot be written")]
    Encode(#[source] LedgerError),
}

/// The open file.
#[derive(Debug)]
pub struct LedgerFile {
    file: File,
    path: PathBuf,
}

impl LedgerFile {
    /// Opens or makes the file and reads what it holds.
    ///
    /// # Errors
    /// If it cannot be read, or is damaged.
    pub fn open(root: &Root) -> Result<(Self, Option<Ledger>), Error> {
        let path = root.state().join("ledger");
        let failed = |operation: &'static str| {
            let path = path.display().to_string();
            move |source| Error::File { operation, path, source }
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed("open"))?;
        let whole = (2 * SLOT_BYTES) as u64;
        if file.metadata().map_err(failed("read"))?.len() < whole {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, whole)
                .or_else(|error| match error {
                    // Where the file system cannot, zeros are written.
                    rustix::io::Errno::OPNOTSUPP => zeros(&file),
                    other => Err(other),
                })
                .map_err(|error| failed("make")(error.into()))?;
            file.sync_all().map_err(failed("make"))?;
            File::open(root.state()).and_then(|it| it.sync_all()).map_err(failed("make"))?;
        }
        let mut slots = [vec![0; SLOT_BYTES], vec![0; SLOT_BYTES]];
        for (index, slot) in slots.iter_mut().enumerate() {
            file.read_exact_at(slot, (index * SLOT_BYTES) as u64).map_err(failed("read"))?;
        }
        let ledger = newest([&slots[0], &slots[1]])
            .map_err(|source| Error::Content { path: path.display().to_string(), source })?;
        Ok((Self { file, path }, ledger))
    }

    /// Writes durably.
    ///
    /// # Errors
    /// If it is not durable; nothing that depends on it may then be done.
    pub fn write(&self, ledger: &Ledger) -> Result<(), Error> {
        let bytes = ledger.encode().map_err(Error::Encode)?;
        let offset = (ledger.sequence % 2) * SLOT_BYTES as u64;
        self.file.write_all_at(&bytes, offset).and_then(|()| self.file.sync_data()).map_err(
            |source| Error::File {
                operation: "write",
                path: self.path.display().to_string(),
                source,
            },
        )
    }
}

fn zeros(file: &File) -> Result<(), rustix::io::Errno> {
    file.write_all_at(&vec![0; 2 * SLOT_BYTES], 0)
        .map_err(|error| rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_slot_is_read_back() {
        let base = std::env::temp_dir().join(format!("matriarch-ledger-{}", std::process::id()));
        let root = Root::new(&base);
        std::fs::create_dir_all(root.state()).unwrap();
        let (file, found) = LedgerFile::open(&root).unwrap();
        assert_eq!(found, None);
        for sequence in 1..=3 {
            file.write(&Ledger { sequence, ..Ledger::default() }).unwrap();
        }
        let (file, found) = LedgerFile::open(&root).unwrap();
        assert_eq!(found.unwrap().sequence, 3);
        // Sequence 3 lies in slot 1: torn, the one before it counts.
        file.file.write_all_at(&[7; 64], SLOT_BYTES as u64 + 40).unwrap();
        assert_eq!(LedgerFile::open(&root).unwrap().1.unwrap().sequence, 2);
        std::fs::remove_dir_all(base).unwrap();
    }
}
