//! What an agent must remember across restarts, and its form on the data volume.
//!
//! The file has two slots of [`SLOT_BYTES`], preallocated so that a full disk cannot block a
//! write (traps H14). The driver writes slot `sequence % 2` and fsyncs; after a crash
//! [`newest`] takes the valid slot with the greater sequence.

use serde::{Deserialize, Serialize};

use matriarch_pg::SystemId;

use super::identity::{Incarnation, Term, Version};
use super::lease::Lease;
use super::position::History;

/// Size of one of the two slots of the file, in bytes.
pub const SLOT_BYTES: usize = 64 * 1024;

const MAGIC: [u8; 8] = *b"MTRLEDGR";
const FORMAT: u32 = 1;
/// magic, format, sequence, length, checksum.
const HEADER_BYTES: usize = 8 + 4 + 8 + 4 + 4;

/// What the instance last was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastRole {
    /// Neither yet.
    #[default]
    None,
    /// It held the Lease.
    Primary,
    /// It followed.
    Standby,
}

/// The agent's durable memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Grows with every write.
    pub sequence: u64,
    /// Id of the data directory; none before there is one.
    pub incarnation: Option<Incarnation>,
    /// System identifier of the data directory.
    pub system_id: Option<SystemId>,
    /// Highest term obeyed.
    pub term: Term,
    /// What it last was.
    pub role: LastRole,
    /// Term that it no longer follows (rule 16).
    pub promised: Option<Term>,
    /// Term whose holder it told to go on without the API (rule 3): after a restart it waits D.
    pub vouched: Option<Term>,
    /// Term in which it set out to promote: gives the new timeline its term after a crash.
    pub promoting: Option<Term>,
    /// A rewind or clone has begun and not ended: the directory is no copy.
    pub rejoining: bool,
    /// Its history; branches beyond what it has flushed are where recovery aims.
    pub history: History,
    /// The last Lease that it read or wrote, with its version.
    pub lease: Option<(Version, Lease)>,
}

/// A slot holds no ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Shorter than a header, or another magic.
    #[error("not a ledger")]
    Foreign,
    /// Written by a newer agent.
    #[error("ledger of format {0} is unknown")]
    Format(u32),
    /// Cut short or changed.
    #[error("ledger fails its checksum")]
    Checksum,
    /// Whole, but not what it should be.
    #[error("ledger cannot be read")]
    Content(#[source] serde_json::Error),
    /// Neither slot is whole although at least one was written.
    #[error("neither slot of the ledger is whole")]
    BothDamaged,
    /// It does not fit into a slot.
    #[error("ledger of {0} bytes does not fit into a slot")]
    TooLarge(usize),
}

impl Ledger {
    /// Bytes of one slot; they are written over the beginning of slot `sequence % 2`.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn encode(&self) -> Result<Vec<u8>, LedgerError> {
        let body = serde_json::to_vec(self).map_err(LedgerError::Content)?;
        let total = HEADER_BYTES + body.len();
        let length = u32::try_from(body.len()).map_err(|_| LedgerError::TooLarge(total))?;
        if total > SLOT_BYTES {
            return Err(LedgerError::TooLarge(total));
        }
        let mut bytes = Vec::with_capacity(total);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&FORMAT.to_le_bytes());
        bytes.extend_from_slice(&self.sequence.to_le_bytes());
        bytes.extend_from_slice(&length.to_le_bytes());
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&bytes), &body);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads one slot.
    ///
    /// # Errors
    /// If it holds no whole ledger of a known format.
    pub fn decode(slot: &[u8]) -> Result<Self, LedgerError> {
        let header = slot.get(..HEADER_BYTES).ok_or(LedgerError::Foreign)?;
        if header[..8] != MAGIC {
            return Err(LedgerError::Foreign);
        }
        let word = |at: usize| {
            u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        if word(8) != FORMAT {
            return Err(LedgerError::Format(word(8)));
        }
        let body = slot
            .get(HEADER_BYTES..HEADER_BYTES.saturating_add(word(20) as usize))
            .ok_or(LedgerError::Checksum)?;
        if crc32c::crc32c_append(crc32c::crc32c(&header[..24]), body) != word(24) {
            return Err(LedgerError::Checksum);
        }
        serde_json::from_slice(body).map_err(LedgerError::Content)
    }
}

/// The ledger of a file with these two slots; none if neither was ever written (all zero or empty).
///
/// # Errors
/// If something was written and no slot is whole: what was promised is not known, so the instance
/// must not take part until a human decides or its data is cloned anew.
pub fn newest(slots: [&[u8]; 2]) -> Result<Option<Ledger>, LedgerError> {
    let written = slots.iter().any(|slot| slot.iter().any(|byte| *byte != 0));
    let mut best: Option<Ledger> = None;
    for slot in slots {
        match Ledger::decode(slot) {
            Ok(ledger) if best.as_ref().is_none_or(|b| b.sequence < ledger.sequence) => {
                best = Some(ledger);
            }
            Ok(_) | Err(LedgerError::Foreign | LedgerError::Checksum) => {}
            Err(error) => return Err(error),
        }
    }
    match best {
        Some(ledger) => Ok(Some(ledger)),
        None if written => Err(LedgerError::BothDamaged),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(sequence: u64) -> Ledger {
        Ledger { sequence, term: Term(sequence), promised: Some(Term(3)), ..Ledger::default() }
    }

    #[test]
    fn a_torn_write_leaves_the_other_slot() {
        let old = ledger(4).encode().unwrap();
        let mut new = ledger(5).encode().unwrap();
        assert_eq!(newest([&old, &new]).unwrap(), Some(ledger(5)));
        let end = new.len() - 1;
        new[end] ^= 1;
        assert_eq!(newest([&old, &new]).unwrap(), Some(ledger(4)));
        new.truncate(10);
        assert_eq!(newest([&old, &new]).unwrap(), Some(ledger(4)));
    }

    #[test]
    fn two_damaged_slots_are_not_an_empty_ledger() {
        assert_eq!(newest([&[0; 512], &[]]).unwrap(), None);
        assert!(matches!(newest([&[0; 512], &[1; 512]]), Err(LedgerError::BothDamaged)));
    }

    #[test]
    fn the_header_is_covered_by_the_checksum() {
        let mut bytes = ledger(4).encode().unwrap();
        bytes[12] ^= 1;
        assert!(matches!(Ledger::decode(&bytes), Err(LedgerError::Checksum)));
    }
}
