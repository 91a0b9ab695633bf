//! Positions in the write-ahead log.
//!
//! Follows PostgreSQL's `src/include/access/xlogdefs.h`, `xlog_internal.h` and
//! `src/backend/utils/adt/pg_lsn.c`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in the write-ahead log, in bytes since its beginning (`XLogRecPtr`, type `pg_lsn`).
///
/// Written as PostgreSQL writes it: `16/B374D848`. Serialised as that string.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

impl Lsn {
    /// `0/0`, which PostgreSQL calls invalid: no record begins there.
    pub const INVALID: Self = Self(0);
    /// The greatest position that can be written down.
    pub const MAX: Self = Self(u64::MAX);

    /// True unless this is `0/0`.
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// Bytes from `earlier` to here; none if `earlier` lies beyond this position.
    pub const fn checked_distance(self, earlier: Self) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// Bytes from `earlier` to here; 0 if `earlier` lies beyond this position.
    pub const fn saturating_distance(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The position `bytes` further on; none beyond the greatest one.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// The position `bytes` further on, at most the greatest one.
    pub const fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }

    /// The position `bytes` before, at least `0/0`.
    pub const fn saturating_sub(self, bytes: u64) -> Self {
        Self(self.0.saturating_sub(bytes))
    }

    /// Number of the segment that holds the byte at this position (`XLByteToSeg`).
    pub const fn segment_number(self, size: SegmentSize) -> u64 {
        self.0 / size.bytes()
    }

    /// Offset of this position in its segment, in bytes (`XLogSegmentOffset`).
    pub const fn segment_offset(self, size: SegmentSize) -> u64 {
        self.0 % size.bytes()
    }

    /// Where the segment that holds this position begins.
    pub const fn segment_start(self, size: SegmentSize) -> Self {
        Self(self.0 - self.0 % size.bytes())
    }
}

/// Text is not a position such as `16/B374D848`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a WAL position: two hexadecimal numbers of at most eight digits with a slash between them are expected, e.g. 16/B374D848"
)]
pub struct ParseLsnError {
    /// What was given.
    pub text: String,
}

/// `%X` of at most eight digits, as `pg_lsn_in` takes it.
fn parse_half(text: &str) -> Option<u64> {
    let digits = (1..=8).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if digits { u64::from_str_radix(text, 16).ok() } else { None }
}

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(parse_half(high)? << 32 | parse_half(low)?)))
            .ok_or_else(|| ParseLsnError { text: text.to_owned() })
    }
}

impl TryFrom<String> for Lsn {
    type Error = ParseLsnError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Size of WAL segments in bytes: a power of two from 1 MiB to 1 GiB (`wal_segment_size`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// initdb's default, 16 MiB.
    pub const DEFAULT: Self = Self(16 << 20);

    /// From bytes.
    pub fn new(bytes: u64) -> Result<Self, SegmentSizeError> {
        // IsValidWalSegSize in xlog_internal.h.
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            Ok(Self(bytes))
        } else {
            Err(SegmentSizeError { bytes })
        }
    }

    /// From MiB, the unit of `initdb --wal-segsize`.
    pub fn from_mebibytes(mebibytes: u64) -> Result<Self, SegmentSizeError> {
        Self::new(mebibytes.saturating_mul(1 << 20))
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// How many segments share the eight digits of a name's middle part
    /// (`XLogSegmentsPerXLogId`).
    pub const fn segments_per_log(self) -> u64 {
        (1 << 32) / self.0
    }
}

impl Default for SegmentSize {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A number is not a size that WAL segments can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes is not a WAL segment size: a power of two from 1 MiB to 1 GiB is expected")]
pub struct SegmentSizeError {
    /// What was given.
    pub bytes: u64,
}

impl TryFrom<u64> for SegmentSize {
    type Error = SegmentSizeError;

    fn try_from(bytes: u64) -> Result<Self, Self::Error> {
        Self::new(bytes)
    }
}

impl From<SegmentSize> for u64 {
    fn from(size: SegmentSize) -> Self {
        size.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_is_written_as_postgresql_writes_it() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn, Lsn(0x16_B374_D848));
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert_eq!("0/0".parse(), Ok(Lsn::INVALID));
        assert_eq!("ffffffff/ffffffff".parse(), Ok(Lsn::MAX));
    }

    #[test]
    fn what_pg_lsn_refuses_is_refused() {
        for text in
            ["", "/", "0/", "/0", "0", "+1/0", "0x1/0", "1/2/3", "123456789/0", " 1/0", "g/0"]
        {
            assert!(text.parse::<Lsn>().is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn distance_backwards_is_none_or_zero() {
        assert_eq!(Lsn(5).checked_distance(Lsn(7)), None);
        assert_eq!(Lsn(5).saturating_distance(Lsn(7)), 0);
        assert_eq!(Lsn(7).checked_distance(Lsn(5)), Some(2));
        assert_eq!(Lsn::MAX.checked_add(1), None);
        assert_eq!(Lsn::MAX.saturating_add(1), Lsn::MAX);
    }

    #[test]
    fn segment_sizes_are_powers_of_two_between_one_mebibyte_and_one_gibibyte() {
        assert!(SegmentSize::from_mebibytes(1).is_ok());
        assert!(SegmentSize::from_mebibytes(1024).is_ok());
        for mebibytes in [0, 3, 2048, u64::MAX] {
            assert!(SegmentSize::from_mebibytes(mebibytes).is_err());
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(value: u64) {
            let lsn = Lsn(value);
            prop_assert_eq!(lsn.to_string().parse::<Lsn>(), Ok(lsn));
        }

        #[test]
        fn segment_start_and_offset_make_the_position(value: u64, power in 20u32..=30) {
            let size = SegmentSize::new(1 << power).unwrap();
            let lsn = Lsn(value);
            prop_assert_eq!(lsn.segment_start(size).0 + lsn.segment_offset(size), value);
            prop_assert_eq!(lsn.segment_number(size) * size.bytes(), lsn.segment_start(size).0);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".*") {
            let _ = text.parse::<Lsn>();
        }
    }
}
