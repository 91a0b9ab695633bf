//! The control file, `global/pg_control`.
//!
//! Follows PostgreSQL's `src/include/catalog/pg_control.h` and `src/common/controldata_utils.c`.
//! Little-endian machines with eight-byte alignment only, as the container images are.

use serde::{Deserialize, Serialize};

use crate::lsn::{Lsn, SegmentSize};
use crate::system_id::SystemId;
use crate::timeline::TimelineId;
use crate::version::Major;
use crate::wal::{WalLayout, WalPageSize};

/// Size of the file in bytes (`PG_CONTROL_FILE_SIZE`); the rest behind the data is zero.
pub const FILE_SIZE: usize = 8192;

/// What the server was doing when it last wrote the file (`DBState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ClusterState {
    /// Starting up.
    Startup,
    /// Shut down cleanly as a primary.
    ShutDown,
    /// Shut down cleanly in recovery.
    ShutDownInRecovery,
    /// Writing the shutdown checkpoint.
    ShuttingDown,
    /// Recovering from a crash.
    InCrashRecovery,
    /// In recovery from an archive or a primary: a standby, running or crashed.
    InArchiveRecovery,
    /// A primary, running or crashed.
    InProduction,
}

impl ClusterState {
    /// Was the server stopped in an orderly way, so that no crash recovery is needed?
    pub const fn is_clean(self) -> bool {
        match self {
            Self::ShutDown | Self::ShutDownInRecovery => true,
            Self::Startup
            | Self::ShuttingDown
            | Self::InCrashRecovery
            | Self::InArchiveRecovery
            | Self::InProduction => false,
        }
    }

    /// The words of pg_controldata.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Startup => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        }
    }

    const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Startup,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }
}

/// `wal_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WalLevel {
    /// Enough for crash recovery.
    Minimal,
    /// Enough for standbys and archives.
    Replica,
    /// Enough for logical decoding.
    Logical,
}

impl WalLevel {
    const fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::Minimal,
            1 => Self::Replica,
            2 => Self::Logical,
            _ => return None,
        })
    }
}

/// Parameters of the primary that a standby must not stay below
/// (documentation, "Hot Standby", Administrator's Overview).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandbyFloor {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

/// What the control file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlData {
    /// Identity of the database system.
    pub system_id: SystemId,
    /// Major version, told from the numbers of the control file and the catalogs.
    pub major: Major,
    /// `catalog_version_no`.
    pub catalog_version: u32,
    /// What the server was doing.
    pub state: ClusterState,
    /// When the file was last written, in seconds since 1970 by the server's clock.
    pub modified_unix_seconds: i64,
    /// Where the latest checkpoint's record lies.
    pub checkpoint: Lsn,
    /// Where replay from it begins.
    pub redo: Lsn,
    /// Timeline of the latest checkpoint.
    pub checkpoint_timeline: TimelineId,
    /// The timeline before, if the checkpoint begins a new one; else the same.
    pub previous_timeline: TimelineId,
    /// `full_page_writes` at the checkpoint.
    pub full_page_writes: bool,
    /// When the checkpoint was made, in seconds since 1970.
    pub checkpoint_unix_seconds: i64,
    /// A standby must replay at least up to here to be consistent; `0/0` on a primary.
    pub min_recovery_point: Lsn,
    /// Its timeline; none on a primary.
    pub min_recovery_timeline: Option<TimelineId>,
    /// Where the base backup began that is still being recovered from; `0/0` if none is.
    pub backup_start: Lsn,
    /// The position that ends the base backup from a standby; `0/0` if none.
    pub backup_end: Lsn,
    /// Is the end-of-backup record still to come?
    pub backup_end_required: bool,
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// `wal_log_hints`, without which (or checksums) pg_rewind refuses.
    pub wal_log_hints: bool,
    /// What standbys must have at least.
    pub floor: StandbyFloor,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
    /// Size of a data page in bytes.
    pub page_size: u32,
    /// Size of a WAL page.
    pub wal_page_size: WalPageSize,
    /// Size of a WAL segment.
    pub segment_size: SegmentSize,
    /// Have data pages checksums?
    pub data_checksums: bool,
}

/// A control file that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The file is cut off.
    #[error("the control file has {length} bytes where at least {needed} are expected")]
    TooShort {
        /// Its length.
        length: usize,
        /// The length of its data.
        needed: usize,
    },
    /// A format that is not known.
    #[error(
        "the control file has version {version} and catalog version {catalog}, which no PostgreSQL from 14 to 18 writes"
    )]
    Version {
        /// `pg_control_version`.
        version: u32,
        /// `catalog_version_no`.
        catalog: u32,
    },
    /// The checksum does not fit: torn or damaged.
    #[error(
        "the control file is damaged: its checksum is {stored:08x} where its content gives {computed:08x}"
    )]
    Checksum {
        /// In the file.
        stored: u32,
        /// From its content.
        computed: u32,
    },
    /// A field has a value that it cannot have.
    #[error("the control file says {value} for {field}, which cannot be")]
    Field {
        /// Which one.
        field: &'static str,
        /// What it says.
        value: u64,
    },
}

/// Places of fields, in bytes. They are the same from 14 to 18: what came in (the checkpoint's
/// `wal_level` in 17) fills former padding, or (`default_char_signedness` in 18) comes behind.
mod place {
    pub const SYSTEM_ID: usize = 0;
    pub const VERSION: usize = 8;
    pub const CATALOG: usize = 12;
    pub const STATE: usize = 16;
    pub const TIME: usize = 24;
    pub const CHECKPOINT: usize = 32;
    pub const REDO: usize = 40;
    pub const TIMELINE: usize = 48;
    pub const PREVIOUS_TIMELINE: usize = 52;
    pub const FULL_PAGE_WRITES: usize = 56;
    pub const CHECKPOINT_TIME: usize = 104;
    pub const MIN_RECOVERY_POINT: usize = 136;
    pub const MIN_RECOVERY_TIMELINE: usize = 144;
    pub const BACKUP_START: usize = 152;
    pub const BACKUP_END: usize = 160;
    pub const BACKUP_END_REQUIRED: usize = 168;
    pub const WAL_LEVEL: usize = 172;
    pub const WAL_LOG_HINTS: usize = 176;
    pub const MAX_CONNECTIONS: usize = 180;
    pub const MAX_WORKER_PROCESSES: usize = 184;
    pub const MAX_WAL_SENDERS: usize = 188;
    pub const MAX_PREPARED: usize = 192;
    pub const MAX_LOCKS: usize = 196;
    pub const TRACK_COMMIT_TIMESTAMP: usize = 200;
    pub const PAGE_SIZE: usize = 216;
    pub const WAL_PAGE_SIZE: usize = 224;
    pub const SEGMENT_SIZE: usize = 228;
    pub const CHECKSUM_VERSION: usize = 252;
}

/// `PG_CONTROL_VERSION` and `CATALOG_VERSION_NO` of each major's releases.
const fn versions(major: Major) -> (u32, u32) {
    match major {
        Major::V14 => (1300, 202_107_181),
        Major::V15 => (1300, 202_209_061),
        Major::V16 => (1300, 202_307_071),
        Major::V17 => (1700, 202_406_281),
        Major::V18 => (1800, 202_506_291),
    }
}

/// Where the checksum lies: behind the random nonce of 32 bytes.
const fn checksum_place(major: Major) -> usize {
    match major {
        Major::V14 | Major::V15 | Major::V16 | Major::V17 => 288,
        Major::V18 => 292,
    }
}

/// The fields of a control file; every read is checked.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], ControlError> {
        let too_short = ControlError::TooShort { length: self.0.len(), needed: at + N };
        self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).ok_or(too_short)
    }

    fn u32(&self, at: usize) -> Result<u32, ControlError> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, ControlError> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn i64(&self, at: usize) -> Result<i64, ControlError> {
        self.array(at).map(i64::from_le_bytes)
    }

    fn lsn(&self, at: usize) -> Result<Lsn, ControlError> {
        self.u64(at).map(Lsn)
    }

    fn flag(&self, at: usize) -> Result<bool, ControlError> {
        self.array::<1>(at).map(|byte| byte != [0])
    }

    fn timeline(&self, at: usize, field: &'static str) -> Result<TimelineId, ControlError> {
        TimelineId::new(self.u32(at)?).ok_or(ControlError::Field { field, value: 0 })
    }

    /// A parameter that PostgreSQL keeps in an int and never lets be negative.
    fn count(&self, at: usize, field: &'static str) -> Result<u32, ControlError> {
        let value = self.u32(at)?;
        let fits = i32::try_from(value).is_ok();
        if fits { Ok(value) } else { Err(ControlError::Field { field, value: value.into() }) }
    }
}

impl ControlData {
    /// Reads the content of `global/pg_control`.
    pub fn parse(content: &[u8]) -> Result<Self, ControlError> {
        let fields = Fields(content);
        let (version, catalog) = (fields.u32(place::VERSION)?, fields.u32(place::CATALOG)?);
        let major = Major::ALL
            .into_iter()
            .find(|major| versions(*major) == (version, catalog))
            .ok_or(ControlError::Version { version, catalog })?;
        let checksum_place = checksum_place(major);
        let stored = fields.u32(checksum_place)?;
        let computed = crc32c::crc32c(content.get(..checksum_place).unwrap_or_default());
        if stored != computed {
            return Err(ControlError::Checksum { stored, computed });
        }
        let state = fields.u32(place::STATE)?;
        let wal_level = fields.u32(place::WAL_LEVEL)?;
        let segment_size = u64::from(fields.u32(place::SEGMENT_SIZE)?);
        let wal_page_size = fields.u32(place::WAL_PAGE_SIZE)?;
        let wrong = |field, value| ControlError::Field { field, value };
        Ok(Self {
            system_id: SystemId(fields.u64(place::SYSTEM_ID)?),
            major,
            catalog_version: catalog,
            state: ClusterState::from_number(state).ok_or(wrong("state", state.into()))?,
            modified_unix_seconds: fields.i64(place::TIME)?,
            checkpoint: fields.lsn(place::CHECKPOINT)?,
            redo: fields.lsn(place::REDO)?,
            checkpoint_timeline: fields.timeline(place::TIMELINE, "the checkpoint's timeline")?,
            previous_timeline: fields
                .timeline(place::PREVIOUS_TIMELINE, "the checkpoint's previous timeline")?,
            full_page_writes: fields.flag(place::FULL_PAGE_WRITES)?,
            checkpoint_unix_seconds: fields.i64(place::CHECKPOINT_TIME)?,
            min_recovery_point: fields.lsn(place::MIN_RECOVERY_POINT)?,
            min_recovery_timeline: TimelineId::new(fields.u32(place::MIN_RECOVERY_TIMELINE)?),
            backup_start: fields.lsn(place::BACKUP_START)?,
            backup_end: fields.lsn(place::BACKUP_END)?,
            backup_end_required: fields.flag(place::BACKUP_END_REQUIRED)?,
            wal_level: WalLevel::from_number(wal_level)
                .ok_or(wrong("wal_level", wal_level.into()))?,
            wal_log_hints: fields.flag(place::WAL_LOG_HINTS)?,
            floor: StandbyFloor {
                max_connections: fields.count(place::MAX_CONNECTIONS, "max_connections")?,
                max_worker_processes: fields
                    .count(place::MAX_WORKER_PROCESSES, "max_worker_processes")?,
                max_wal_senders: fields.count(place::MAX_WAL_SENDERS, "max_wal_senders")?,
                max_prepared_transactions: fields
                    .count(place::MAX_PREPARED, "max_prepared_transactions")?,
                max_locks_per_transaction: fields
                    .count(place::MAX_LOCKS, "max_locks_per_transaction")?,
            },
            track_commit_timestamp: fields.flag(place::TRACK_COMMIT_TIMESTAMP)?,
            page_size: fields.u32(place::PAGE_SIZE)?,
            wal_page_size: WalPageSize::new(wal_page_size)
                .ok_or(wrong("the WAL page size", wal_page_size.into()))?,
            segment_size: SegmentSize::new(segment_size)
                .map_err(|_| wrong("the WAL segment size", segment_size))?,
            data_checksums: fields.u32(place::CHECKSUM_VERSION)? != 0,
        })
    }

    /// How to read this system's write-ahead log up to `timeline`.
    pub const fn wal_layout(&self, timeline: TimelineId) -> WalLayout {
        WalLayout {
            major: self.major,
            segment_size: self.segment_size,
            page_size: self.wal_page_size,
            system_id: self.system_id,
            timeline,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(major: Major) -> Vec<u8> {
        let mut bytes = vec![0; FILE_SIZE];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let (version, catalog) = versions(major);
        put(place::SYSTEM_ID, &42u64.to_le_bytes());
        put(place::VERSION, &version.to_le_bytes());
        put(place::CATALOG, &catalog.to_le_bytes());
        put(place::STATE, &6u32.to_le_bytes());
        put(place::CHECKPOINT, &0x300_0110u64.to_le_bytes());
        put(place::REDO, &0x300_00D8u64.to_le_bytes());
        put(place::TIMELINE, &2u32.to_le_bytes());
        put(place::PREVIOUS_TIMELINE, &1u32.to_le_bytes());
        put(place::MAX_CONNECTIONS, &100u32.to_le_bytes());
        put(place::WAL_LEVEL, &1u32.to_le_bytes());
        put(place::WAL_PAGE_SIZE, &8192u32.to_le_bytes());
        put(place::SEGMENT_SIZE, &(16u32 << 20).to_le_bytes());
        seal(&mut bytes, major);
        bytes
    }

    fn seal(bytes: &mut [u8], major: Major) {
        let at = checksum_place(major);
        let checksum = crc32c::crc32c(&bytes[..at]);
        bytes[at..at + 4].copy_from_slice(&checksum.to_le_bytes());
    }

    #[test]
    fn every_major_s_file_is_read_and_told_apart() {
        for major in Major::ALL {
            let read = ControlData::parse(&file(major)).unwrap();
            assert_eq!(read.major, major);
            assert_eq!(read.system_id, SystemId(42));
            assert_eq!(read.state, ClusterState::InProduction);
            assert_eq!(read.checkpoint, Lsn(0x300_0110));
            assert_eq!(read.checkpoint_timeline.get(), 2);
            assert_eq!(read.min_recovery_timeline, None);
            assert_eq!(read.floor.max_connections, 100);
        }
    }

    #[test]
    fn a_file_that_cannot_be_trusted_is_refused_with_the_reason() {
        let whole = file(Major::V17);
        let parse = |bytes: &[u8]| ControlData::parse(bytes).unwrap_err();
        assert!(matches!(parse(&[]), ControlError::TooShort { .. }));
        assert!(matches!(parse(&whole[..290]), ControlError::TooShort { .. }));
        let mut torn = whole.clone();
        torn[40] ^= 1;
        assert!(matches!(parse(&torn), ControlError::Checksum { .. }));
        let mut other = whole.clone();
        other[8] ^= 1;
        assert!(matches!(parse(&other), ControlError::Version { .. }));
        let mut state = whole.clone();
        state[place::STATE] = 9;
        seal(&mut state, Major::V17);
        assert_eq!(parse(&state), ControlError::Field { field: "state", value: 9 });
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            noise in prop::collection::vec(any::<u8>(), 0..400),
            major in prop::sample::select(&Major::ALL[..]),
            at in 0usize..300,
        ) {
            let _ = ControlData::parse(&noise);
            // Sealed, so that the fields behind the checksum's check are reached as well.
            let mut bytes = file(major);
            let end = (at + noise.len()).min(FILE_SIZE);
            bytes[at..end].copy_from_slice(&noise[..end - at]);
            seal(&mut bytes, major);
            let _ = ControlData::parse(&bytes);
        }
    }
}
