//! Is there a valid record at a position of the write-ahead log, and where does the log end?
//!
//! Follows PostgreSQL's `src/backend/access/transam/xlogreader.c` (`XLogReaderValidatePageHeader`,
//! `ValidXLogRecordHeader`, `ValidXLogRecord`) and the layouts in `xlog_internal.h` and
//! `xlogrecord.h`. Little-endian machines only, as the container images are.
//!
//! It serves rule 19: a successor has everything when no valid record lies beyond its flushed
//! position in the former primary's `pg_wal` (traps H10). What cannot be told is never "nothing":
//! it is [`RecordAt::Inside`] or [`RecordAt::NeedsMore`].

use crate::lsn::{Lsn, SegmentSize};
use crate::system_id::SystemId;
use crate::timeline::TimelineId;
use crate::version::Major;

const SHORT_HEADER: u64 = 24;
const LONG_HEADER: u64 = 40;
const RECORD_HEADER: usize = 24;
const CRC_OFFSET: usize = 20;
/// `XLogRecordMaxSize`; older majors cannot allocate more either.
const MAX_RECORD: u32 = 1020 * 1024 * 1024;

const FIRST_IS_CONTRECORD: u16 = 0x0001;
const HAS_LONG_HEADER: u16 = 0x0002;
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
const ALL_FLAGS: u16 = 0x000F;

const RM_XLOG_ID: u8 = 0;
const XLR_INFO_MASK: u8 = 0x0F;
const XLOG_SWITCH: u8 = 0x40;

/// Size of WAL pages in bytes: a power of two from 1 to 64 KiB (`XLOG_BLCKSZ`, 8 KiB unless built
/// otherwise).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalPageSize(u32);

impl WalPageSize {
    /// What packages are built with.
    pub const DEFAULT: Self = Self(8192);

    /// None if WAL pages cannot have this size.
    pub const fn new(bytes: u32) -> Option<Self> {
        let fits = bytes.is_power_of_two() && bytes >= 1024 && bytes <= 65_536;
        if fits { Some(Self(bytes)) } else { None }
    }

    /// In bytes.
    pub const fn bytes(self) -> u32 {
        self.0
    }
}

/// How the write-ahead log of a data directory is laid out; pg_control says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalLayout {
    /// Decides the magic number of pages.
    pub major: Major,
    /// Size of segments.
    pub segment_size: SegmentSize,
    /// Size of its pages.
    pub page_size: WalPageSize,
    /// The system whose log it is.
    pub system_id: SystemId,
    /// The youngest timeline that may be met. Pages of ancestors are taken: the first segment of
    /// a timeline begins with a copy of its parent's.
    pub timeline: TimelineId,
}

impl WalLayout {
    /// `XLOG_PAGE_MAGIC`.
    pub const fn page_magic(major: Major) -> u16 {
        match major {
            Major::V14 => 0xD10D,
            Major::V15 => 0xD110,
            Major::V16 => 0xD113,
            Major::V17 => 0xD116,
            Major::V18 => 0xD118,
        }
    }
}

/// A stretch of the log: one segment, or several that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct WalBytes<'a> {
    /// Where `bytes` begins; a multiple of the page size.
    pub start: Lsn,
    /// The content. May end anywhere.
    pub bytes: &'a [u8],
    /// How to read it.
    pub layout: WalLayout,
}

/// A valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where its first byte lies (behind a page header, if the position was a page's start).
    pub start: Lsn,
    /// Its length in bytes, without page headers (`xl_tot_len`).
    pub length: u32,
    /// Where its last byte ends, aligned: what `pg_current_wal_lsn` says after it. After a
    /// segment switch the segment's end.
    pub end: Lsn,
    /// Where the record before it begins (`xl_prev`).
    pub previous: Lsn,
    /// Timeline of the page on which it begins.
    pub timeline: TimelineId,
}

/// Why no valid record begins at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRecord {
    /// The page is not one of this log at this address: never written, recycled or foreign.
    Page,
    /// The length is zero: nothing was written here yet.
    Zero,
    /// The length cannot be.
    Length,
    /// The back-link does not fit.
    BackLink,
    /// The checksum does not fit.
    Checksum,
    /// A later page does not continue the record: it was never finished.
    Unfinished,
}

/// What lies at a position of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordAt {
    /// A whole and valid record begins here.
    Valid(Record),
    /// No valid record begins here.
    None(NoRecord),
    /// The position lies within a record that began before, or within a page header: records
    /// cannot begin here, and nothing is said of what follows.
    Inside,
    /// The bytes from here on are needed to tell.
    NeedsMore(Lsn),
}

/// Where the valid part of a stretch of log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalEnd {
    /// The last valid record ends at `end`, and `why` there is no further one.
    At {
        /// End of the last valid record.
        end: Lsn,
        /// Why it is the last.
        why: NoRecord,
    },
    /// All records that end within the stretch are valid; the bytes from `from` on are needed to
    /// go on. When no file holds them, the log ends at `end`.
    NeedsMore {
        /// End of the last valid record seen.
        end: Lsn,
        /// First byte that is needed.
        from: Lsn,
    },
    /// The stretch has no beginning from which records could be followed: its first page is not
    /// one of this log.
    NoStart(NoRecord),
}

/// A page header that fits its place.
struct PageHeader {
    timeline: TimelineId,
    flags: u16,
    remaining: u32,
    size: u64,
}

impl PageHeader {
    const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Why a step could not be made.
enum Stop {
    NoRecord(NoRecord),
    NeedsMore(Lsn),
    /// The record was given up: a page says that it overwrites its continuation.
    Overwritten(Lsn),
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

const fn align(value: u64) -> u64 {
    value.saturating_add(7) & !7
}

impl<'a> WalBytes<'a> {
    const fn page_size(&self) -> u64 {
        self.layout.page_size.bytes() as u64
    }

    const fn page_start(&self, at: Lsn) -> Lsn {
        Lsn(at.0 - at.0 % self.page_size())
    }

    /// `length` bytes at `at`.
    fn slice(&self, at: Lsn, length: u64) -> Result<&'a [u8], Stop> {
        let offset = at.checked_distance(self.start).ok_or(Stop::NeedsMore(at))?;
        let end_of_bytes = self.start.saturating_add(self.bytes.len() as u64);
        let needed = if at < end_of_bytes { end_of_bytes } else { at };
        let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
        range
            .and_then(|(offset, length)| self.bytes.get(offset..offset.checked_add(length)?))
            .ok_or(Stop::NeedsMore(needed))
    }

    /// The header of the page that begins at `page`, checked as
    /// `XLogReaderValidatePageHeader` does.
    fn page_header(&self, page: Lsn) -> Result<PageHeader, Stop> {
        let bytes = self.slice(page, SHORT_HEADER)?;
        let no_page = || Stop::NoRecord(NoRecord::Page);
        let magic = u16::from_le_bytes(number(bytes, 0).ok_or_else(no_page)?);
        let flags = u16::from_le_bytes(number(bytes, 2).ok_or_else(no_page)?);
        let timeline = u32::from_le_bytes(number(bytes, 4).ok_or_else(no_page)?);
        let address = u64::from_le_bytes(number(bytes, 8).ok_or_else(no_page)?);
        let remaining = u32::from_le_bytes(number(bytes, 16).ok_or_else(no_page)?);
        let timeline = TimelineId::new(timeline).ok_or_else(no_page)?;
        let long = flags & HAS_LONG_HEADER != 0;
        let begins_segment = page.segment_offset(self.layout.segment_size) == 0;
        if magic != WalLayout::page_magic(self.layout.major)
            || flags & !ALL_FLAGS != 0
            || address != page.0
            || timeline > self.layout.timeline
            || long != begins_segment
        {
            return Err(no_page());
        }
        if long {
            let bytes = self.slice(page, LONG_HEADER)?;
            let system_id = u64::from_le_bytes(number(bytes, 24).ok_or_else(no_page)?);
            let segment_size = u32::from_le_bytes(number(bytes, 32).ok_or_else(no_page)?);
            let page_size = u32::from_le_bytes(number(bytes, 36).ok_or_else(no_page)?);
            if system_id != self.layout.system_id.0
                || u64::from(segment_size) != self.layout.segment_size.bytes()
                || page_size != self.layout.page_size.bytes()
            {
                return Err(no_page());
            }
        }
        let size = if long { LONG_HEADER } else { SHORT_HEADER };
        Ok(PageHeader { timeline, flags, remaining, size })
    }

    /// Reads the record whose first byte lies at `start`, on a page whose header is `page`.
    fn read_record(
        &self,
        start: Lsn,
        page: &PageHeader,
        previous: Option<Lsn>,
    ) -> Result<Record, Stop> {
        let no = |why| Stop::NoRecord(why);
        // Records begin aligned, so that the length is never split between pages.
        let length = number(self.slice(start, 4)?, 0).ok_or_else(|| no(NoRecord::Length))?;
        let length = u32::from_le_bytes(length);
        if length == 0 {
            return Err(no(NoRecord::Zero));
        }
        if !(RECORD_HEADER as u32..=MAX_RECORD).contains(&length) {
            return Err(no(NoRecord::Length));
        }
        let mut reader = RecordReader::default();
        let mut at = start;
        let mut remaining = u64::from(length);
        loop {
            let page_end = self.page_start(at).saturating_add(self.page_size());
            let piece = remaining.min(page_end.saturating_distance(at));
            reader.take(self.slice(at, piece)?);
            // The back-link is checked as early as it can be: rubbish is then told from a record
            // whose other pages are not here.
            if reader.has_header() && !back_link_fits(reader.previous(), start, previous) {
                return Err(no(NoRecord::BackLink));
            }
            remaining -= piece;
            at = at.saturating_add(piece);
            if remaining == 0 {
                break;
            }
            at = self.continuation(at, page, remaining)?;
        }
        if !reader.checksum_fits() {
            return Err(no(NoRecord::Checksum));
        }
        let segment_size = self.layout.segment_size;
        let end = if reader.switches_segment() && at.segment_offset(segment_size) != 0 {
            at.segment_start(segment_size).saturating_add(segment_size.bytes())
        } else {
            Lsn(align(at.0))
        };
        let previous = reader.previous();
        Ok(Record { start, length, end, previous, timeline: page.timeline })
    }

    /// Where, on the page that begins at `page_start`, the `remaining` bytes of a record go on.
    fn continuation(
        &self,
        page_start: Lsn,
        first: &PageHeader,
        remaining: u64,
    ) -> Result<Lsn, Stop> {
        let unfinished = Stop::NoRecord(NoRecord::Unfinished);
        let header = match self.page_header(page_start) {
            Err(Stop::NoRecord(_)) => return Err(unfinished),
            other => other?,
        };
        if header.has(FIRST_IS_OVERWRITE_CONTRECORD) {
            return Err(Stop::Overwritten(page_start));
        }
        if !header.has(FIRST_IS_CONTRECORD)
            || u64::from(header.remaining) != remaining
            || header.timeline < first.timeline
        {
            return Err(unfinished);
        }
        Ok(page_start.saturating_add(header.size))
    }

    /// What lies at `position`, as an end of WAL (a standby's flushed position) or a record's
    /// start.
    ///
    /// The records of the page before the position are followed, so that a position within a
    /// record is known for one. With `previous`, the start of the record before, the back-link of
    /// a page's first record is checked exactly; without, only that it points backwards.
    ///
    /// Nothing but zeros follows the record that ends a segment early, also where later segments
    /// hold records: [`WalBytes::end`], which follows the records over segments, is the proof to
    /// prefer.
    pub fn record_at(&self, position: Lsn, previous: Option<Lsn>) -> RecordAt {
        match self.try_record_at(position, previous) {
            Ok(found) => found,
            Err(Stop::NoRecord(why)) => RecordAt::None(why),
            Err(Stop::NeedsMore(from)) => RecordAt::NeedsMore(from),
            // A record that was given up begins here or before; others follow it.
            Err(Stop::Overwritten(_)) => RecordAt::Inside,
        }
    }

    fn try_record_at(&self, position: Lsn, previous: Option<Lsn>) -> Result<RecordAt, Stop> {
        let page_start = self.page_start(position);
        let header = self.page_header(page_start)?;
        let first = page_start.saturating_add(header.size);
        let target = if position == page_start { first } else { position };
        let mut at = if header.has(FIRST_IS_CONTRECORD) {
            first.saturating_add(align(u64::from(header.remaining)))
        } else {
            first
        };
        let mut known = None;
        while at < target {
            let record = self.read_record(at, &header, known)?;
            known = Some(record.start);
            at = record.end;
        }
        if at > target {
            return Ok(RecordAt::Inside);
        }
        self.read_record(target, &header, known.or(previous)).map(RecordAt::Valid)
    }

    /// Follows the records from the first one that begins in this stretch to the last valid one.
    ///
    /// Nothing lies beyond a standby's flushed position exactly if the end found here, over all
    /// segments that the former primary has, is not greater than it.
    pub fn end(&self) -> WalEnd {
        let mut at = match self.first_record() {
            Ok(first) => first,
            Err(Stop::NeedsMore(from)) => return WalEnd::NeedsMore { end: self.start, from },
            Err(Stop::NoRecord(why)) => return WalEnd::NoStart(why),
            // The stretch's first page never continues anything from within the stretch.
            Err(Stop::Overwritten(_)) => return WalEnd::NoStart(NoRecord::Unfinished),
        };
        let mut previous = None;
        loop {
            let page_start = self.page_start(at);
            let step = self.page_header(page_start).and_then(|header| {
                let first = page_start.saturating_add(header.size);
                let start = if at == page_start { first } else { at };
                self.read_record(start, &header, previous)
            });
            match step {
                Ok(record) => {
                    previous = Some(record.start);
                    at = record.end;
                }
                Err(Stop::NoRecord(why)) => return WalEnd::At { end: at, why },
                Err(Stop::NeedsMore(from)) => return WalEnd::NeedsMore { end: at, from },
                // A record that a crash cut off; its successor points back to the same one.
                Err(Stop::Overwritten(page)) => at = page,
            }
        }
    }

    /// Where the first record that begins in this stretch lies (`XLogFindNextRecord`).
    fn first_record(&self) -> Result<Lsn, Stop> {
        let mut page = self.start;
        loop {
            let header = self.page_header(page)?;
            let first = page.saturating_add(header.size);
            if !header.has(FIRST_IS_CONTRECORD) {
                return Ok(page);
            }
            let room = self.page_size() - header.size;
            let rest = align(u64::from(header.remaining));
            // Greater or equal: a rest that fills the page leaves the next page to begin with.
            if rest < room {
                return Ok(first.saturating_add(rest));
            }
            page = page.saturating_add(self.page_size());
        }
    }
}

/// `xl_prev` is checked exactly when the record before is known, else only for direction.
fn back_link_fits(found: Lsn, start: Lsn, previous: Option<Lsn>) -> bool {
    match previous {
        Some(previous) => found == previous,
        None => found < start,
    }
}

/// Collects a record's header and checksum from its pieces.
#[derive(Default)]
struct RecordReader {
    header: [u8; RECORD_HEADER],
    filled: usize,
    checksum: u32,
}

impl RecordReader {
    fn take(&mut self, piece: &[u8]) {
        let part = piece.len().min(RECORD_HEADER - self.filled);
        let (header, data) = piece.split_at(part);
        self.header[self.filled..self.filled + part].copy_from_slice(header);
        self.filled += part;
        self.checksum = crc32c::crc32c_append(self.checksum, data);
    }

    const fn has_header(&self) -> bool {
        self.filled == RECORD_HEADER
    }

    fn previous(&self) -> Lsn {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.header[8..16]);
        Lsn(u64::from_le_bytes(bytes))
    }

    /// The data comes first, then the header without the checksum itself (`ValidXLogRecord`).
    fn checksum_fits(&self) -> bool {
        let mut stored = [0; 4];
        stored.copy_from_slice(&self.header[CRC_OFFSET..]);
        crc32c::crc32c_append(self.checksum, &self.header[..CRC_OFFSET])
            == u32::from_le_bytes(stored)
    }

    const fn switches_segment(&self) -> bool {
        self.header[17] == RM_XLOG_ID && self.header[16] & !XLR_INFO_MASK == XLOG_SWITCH
    }
}

#[cfg(test)]
mod tests;
