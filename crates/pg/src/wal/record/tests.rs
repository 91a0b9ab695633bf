use proptest::prelude::*;

use super::*;

const PAGE: u64 = 8192;
const SEGMENT: u64 = 1 << 20;
const START: Lsn = Lsn(5 * SEGMENT);
const SYSTEM: SystemId = SystemId(7_573_141_229_387_595_814);

fn layout() -> WalLayout {
    WalLayout {
        major: Major::V17,
        segment_size: SegmentSize::new(SEGMENT).unwrap(),
        page_size: WalPageSize::DEFAULT,
        system_id: SYSTEM,
        timeline: TimelineId::FIRST,
    }
}

/// Writes log as PostgreSQL does: page headers, records over page borders, back-links, checksums.
struct Writer {
    bytes: Vec<u8>,
    previous: Lsn,
    /// Start and end of every record.
    records: Vec<(Lsn, Lsn)>,
    overwrites: bool,
}

impl Writer {
    fn new() -> Self {
        Self { bytes: Vec::new(), previous: Lsn(17), records: Vec::new(), overwrites: false }
    }

    fn at(&self) -> Lsn {
        Lsn(START.0 + self.bytes.len() as u64)
    }

    fn page_header(&mut self, remaining: usize) {
        let at = self.at();
        let long = at.0.is_multiple_of(SEGMENT);
        let mut flags = if long { HAS_LONG_HEADER } else { 0 };
        flags |= if remaining > 0 { FIRST_IS_CONTRECORD } else { 0 };
        flags |= if self.overwrites { FIRST_IS_OVERWRITE_CONTRECORD } else { 0 };
        self.overwrites = false;
        self.bytes.extend(WalLayout::page_magic(Major::V17).to_le_bytes());
        self.bytes.extend(flags.to_le_bytes());
        self.bytes.extend(1u32.to_le_bytes());
        self.bytes.extend(at.0.to_le_bytes());
        self.bytes.extend((remaining as u32).to_le_bytes());
        self.bytes.extend([0; 4]);
        if long {
            self.bytes.extend(SYSTEM.0.to_le_bytes());
            self.bytes.extend((SEGMENT as u32).to_le_bytes());
            self.bytes.extend((PAGE as u32).to_le_bytes());
        }
    }

    fn record(&mut self, payload: usize, info: u8) {
        let mut record = Vec::new();
        record.extend((RECORD_HEADER as u32 + payload as u32).to_le_bytes());
        record.extend(7u32.to_le_bytes());
        record.extend(self.previous.0.to_le_bytes());
        record.extend([info, RM_XLOG_ID, 0, 0]);
        let data: Vec<u8> = (0..payload).map(|index| (index % 251) as u8 + 1).collect();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&data), &record);
        record.extend(checksum.to_le_bytes());
        record.extend(data);

        let mut written = 0;
        let mut start = None;
        while written < record.len() {
            if self.at().0.is_multiple_of(PAGE) {
                self.page_header(if written == 0 { 0 } else { record.len() - written });
            }
            start.get_or_insert(self.at());
            let room = (PAGE - self.at().0 % PAGE) as usize;
            let piece = room.min(record.len() - written);
            self.bytes.extend(&record[written..written + piece]);
            written += piece;
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self.previous = start.unwrap();
        self.records.push((self.previous, self.at()));
    }

    fn fill_segment(&mut self) {
        let length = self.bytes.len().next_multiple_of(SEGMENT as usize);
        self.bytes.resize(length, 0);
    }

    fn wal(&self) -> WalBytes<'_> {
        WalBytes { start: START, bytes: &self.bytes, layout: layout() }
    }
}

fn written(payloads: &[usize]) -> Writer {
    let mut writer = Writer::new();
    payloads.iter().for_each(|payload| writer.record(*payload, 0));
    writer
}

#[test]
fn a_record_is_valid_where_one_begins_and_only_there() {
    let mut writer = written(&[100, 20_000, 8]);
    writer.fill_segment();
    let (start, end) = writer.records[1];
    let RecordAt::Valid(found) = writer.wal().record_at(start, None) else { panic!() };
    assert_eq!((found.start, found.end, found.length), (start, end, 20_024));
    assert_eq!(found.previous, writer.records[0].0);
    assert_eq!(writer.wal().record_at(Lsn(start.0 + 8), None), RecordAt::Inside);
    assert_eq!(writer.wal().record_at(Lsn(start.0 + 1), None), RecordAt::Inside);
    let border = Lsn(START.0 + PAGE);
    assert_eq!(writer.wal().record_at(border, None), RecordAt::Inside);
    let (_, last_end) = writer.records[2];
    assert_eq!(writer.wal().record_at(last_end, None), RecordAt::None(NoRecord::Zero));
    let empty = Lsn(START.0 + 20 * PAGE);
    assert_eq!(writer.wal().record_at(empty, None), RecordAt::None(NoRecord::Page));
    let beyond = Lsn(START.0 + SEGMENT);
    assert_eq!(writer.wal().record_at(beyond, None), RecordAt::NeedsMore(beyond));
}

#[test]
fn the_first_record_of_a_page_is_found_at_the_page_s_start_and_its_back_link_is_checked() {
    let writer = written(&[100]);
    let first = Lsn(START.0 + LONG_HEADER);
    for position in [START, first] {
        let found = writer.wal().record_at(position, Some(Lsn(17)));
        assert!(matches!(found, RecordAt::Valid(Record { start, .. }) if start == first));
    }
    assert_eq!(writer.wal().record_at(START, Some(Lsn(18))), RecordAt::None(NoRecord::BackLink));
    assert_eq!(writer.wal().record_at(Lsn(START.0 + 8), None), RecordAt::Inside);
}

#[test]
fn a_changed_byte_ends_the_log_before_its_record() {
    let mut writer = written(&[100, 300, 100]);
    writer.fill_segment();
    let (start, _) = writer.records[1];
    let offset = (start.0 - START.0) as usize + 200;
    writer.bytes[offset] ^= 0x10;
    assert_eq!(writer.wal().end(), WalEnd::At { end: start, why: NoRecord::Checksum });
}

#[test]
fn a_record_whose_last_page_was_never_written_is_no_record() {
    let mut writer = written(&[100, 20_000]);
    let (start, _) = writer.records[1];
    writer.bytes.truncate(2 * PAGE as usize);
    assert_eq!(writer.wal().end(), WalEnd::NeedsMore { end: start, from: Lsn(START.0 + 2 * PAGE) });
    writer.fill_segment();
    assert_eq!(writer.wal().end(), WalEnd::At { end: start, why: NoRecord::Unfinished });
}

#[test]
fn a_segment_switch_ends_the_segment_and_the_log_goes_on_in_the_next() {
    let mut writer = written(&[100]);
    writer.record(0, XLOG_SWITCH);
    let (_, unpadded_end) = writer.records[1];
    writer.fill_segment();
    let next = Lsn(START.0 + SEGMENT);
    let RecordAt::Valid(switch) = writer.wal().record_at(writer.records[1].0, None) else {
        panic!()
    };
    assert_eq!(switch.end, next);
    assert_eq!(writer.wal().record_at(unpadded_end, None), RecordAt::Inside);
    assert_eq!(writer.wal().end(), WalEnd::NeedsMore { end: next, from: next });
    writer.record(50, 0);
    let (_, end) = writer.records[2];
    assert_eq!(writer.wal().end(), WalEnd::NeedsMore { end, from: end });
}

#[test]
fn a_record_given_up_by_a_crash_is_stepped_over() {
    let mut writer = written(&[100, 9_000]);
    let before = writer.records[0].0;
    writer.bytes.truncate(PAGE as usize);
    writer.overwrites = true;
    writer.previous = before;
    writer.record(30, 0);
    let (start, end) = writer.records[2];
    assert_eq!(start, Lsn(START.0 + PAGE + SHORT_HEADER));
    writer.fill_segment();
    assert_eq!(writer.wal().end(), WalEnd::At { end, why: NoRecord::Zero });
    assert_eq!(writer.wal().record_at(writer.records[1].0, None), RecordAt::Inside);
}

#[test]
fn log_of_another_system_timeline_or_place_is_none_of_ours() {
    let writer = written(&[100]);
    let with = |change: fn(&mut WalBytes<'_>)| {
        let mut wal = writer.wal();
        change(&mut wal);
        wal.end()
    };
    let none = WalEnd::NoStart(NoRecord::Page);
    assert_eq!(with(|wal| wal.layout.system_id = SystemId(1)), none);
    assert_eq!(with(|wal| wal.layout.major = Major::V16), none);
    assert_eq!(with(|wal| wal.layout.segment_size = SegmentSize::DEFAULT), none);
    assert_eq!(with(|wal| wal.start = Lsn(START.0 + SEGMENT)), none);
    assert_eq!(with(|wal| wal.layout.page_size = WalPageSize::new(4096).unwrap()), none);
    assert_eq!(
        with(|wal| wal.bytes = &wal.bytes[..10]),
        WalEnd::NeedsMore { end: START, from: Lsn(START.0 + 10) }
    );
}

#[test]
fn a_segment_that_begins_within_a_record_is_followed_from_the_first_whole_one() {
    let mut writer = written(&[100, SEGMENT as usize, 100]);
    writer.fill_segment();
    let second = WalBytes {
        start: Lsn(START.0 + SEGMENT),
        bytes: &writer.bytes[SEGMENT as usize..],
        layout: layout(),
    };
    let (start, end) = writer.records[2];
    assert_eq!(second.end(), WalEnd::At { end, why: NoRecord::Zero });
    assert!(matches!(second.record_at(start, None), RecordAt::Valid(_)));
    let first = WalBytes { bytes: &writer.bytes[..SEGMENT as usize], ..writer.wal() };
    let (end, from) = (writer.records[1].0, Lsn(START.0 + SEGMENT));
    assert_eq!(first.end(), WalEnd::NeedsMore { end, from });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_end_is_the_end_of_the_last_record(
        payloads in prop::collection::vec(0usize..30_000, 1..30),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut writer = written(&payloads);
        let end = writer.records.last().unwrap().1;
        prop_assert_eq!(writer.wal().end(), WalEnd::NeedsMore { end, from: end });
        for (start, end) in &writer.records {
            let found = writer.wal().record_at(*start, None);
            prop_assert!(matches!(found, RecordAt::Valid(record) if record.end == *end));
        }
        // Torn anywhere: everything that ended before is still found, nothing after it.
        let cut = cut.index(writer.bytes.len());
        let torn = Lsn(START.0 + cut as u64);
        let whole = writer.records.iter().map(|(_, end)| *end).filter(|end| *end <= torn).max();
        writer.bytes.truncate(cut);
        match writer.wal().end() {
            WalEnd::NeedsMore { end, .. } => prop_assert!(end >= whole.unwrap_or(START)),
            other => prop_assert!(false, "{other:?}"),
        }
        writer.fill_segment();
        if let WalEnd::At { end, .. } = writer.wal().end() {
            // Alignment and payloads of zeros aside, a torn record is never taken.
            prop_assert!(end >= whole.unwrap_or(START));
            prop_assert!(end <= Lsn(torn.0.next_multiple_of(8)));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(
        payloads in prop::collection::vec(0usize..9_000, 1..6),
        noise in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(),
        position: u64,
        start: u64,
    ) {
        let mut writer = written(&payloads);
        let at = at.index(writer.bytes.len());
        let end = (at + noise.len()).min(writer.bytes.len());
        writer.bytes[at..end].copy_from_slice(&noise[..end - at]);
        let near = Lsn(START.0 + position % (4 * PAGE));
        for wal in [writer.wal(), WalBytes { start: Lsn(start), ..writer.wal() }] {
            let _ = wal.end();
            let _ = wal.record_at(near, None);
            let _ = wal.record_at(Lsn(position), Some(near));
        }
        let _ = WalBytes { start: Lsn(start), bytes: &noise, layout: layout() }.end();
    }
}
