use proptest::prelude::*;

use super::*;

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn history(number: u32, content: &str) -> TimelineHistory {
    TimelineHistory::parse(tli(number), content).unwrap()
}

#[test]
fn a_history_file_of_postgresql_is_read_with_comments_and_blank_lines() {
    let text = "# made by hand\n\n1\t0/3000110\tno recovery target specified\n\n  2\t0/5000000\tat restore point \"a b\"\n";
    let read = history(3, text);
    assert_eq!(read.timeline(), tli(3));
    assert_eq!(read.left(tli(1)), Some(Lsn(0x300_0110)));
    assert_eq!(read.began(tli(2)), Some(Lsn(0x300_0110)));
    assert_eq!(read.began(tli(3)), Some(Lsn(0x500_0000)));
    assert_eq!(read.left(tli(3)), None);
    assert_eq!(read.forks()[1].reason, "at restore point \"a b\"");
    assert_eq!(
        read.render(),
        "1\t0/3000110\tno recovery target specified\n2\t0/5000000\tat restore point \"a b\"\n"
    );
}

#[test]
fn a_history_that_postgresql_would_refuse_is_refused_with_its_line() {
    let parse = |text| TimelineHistory::parse(tli(3), text);
    assert_eq!(parse("x"), Err(HistoryError::Syntax { timeline: tli(3), line: 1 }));
    assert_eq!(parse("1\t0/1\n1"), Err(HistoryError::Syntax { timeline: tli(3), line: 2 }));
    assert_eq!(parse("0\t0/1"), Err(HistoryError::Syntax { timeline: tli(3), line: 1 }));
    assert!(matches!(parse("2\t0/1\n1\t0/2"), Err(HistoryError::NotIncreasing { line: 2, .. })));
    assert!(matches!(parse("1\t0/2\n2\t0/1"), Err(HistoryError::Backwards { line: 2, .. })));
    assert!(matches!(parse("3\t0/1"), Err(HistoryError::AncestorNotSmaller { .. })));
}

#[test]
fn a_position_lies_in_a_history_up_to_and_with_the_fork() {
    let read = history(2, "1\t0/300\tx\n");
    assert!(read.contains(tli(1), Lsn(0x2FF)));
    assert!(read.contains(tli(1), Lsn(0x300)));
    assert!(!read.contains(tli(1), Lsn(0x301)));
    assert!(read.contains(tli(2), Lsn(0x301)));
    assert!(!read.contains(tli(2), Lsn(0x2FF)));
    assert!(!read.contains(tli(3), Lsn(0x2FF)));
    assert_eq!(read.timeline_at(Lsn(0x2FF)), tli(1));
    assert_eq!(read.timeline_at(Lsn(0x300)), tli(2));
}

#[test]
fn histories_part_at_the_earlier_fork() {
    let first = TimelineHistory::root(tli(1));
    let second = first.append(tli(2), Lsn(0x300), "a").unwrap();
    let third = first.append(tli(3), Lsn(0x200), "b").unwrap();
    let common = |a: &TimelineHistory, b: &TimelineHistory| a.common_point(b);
    let at = |timeline, end: Option<u64>| {
        Some(CommonPoint { timeline: tli(timeline), end: end.map(Lsn) })
    };
    assert_eq!(common(&second, &third), at(1, Some(0x200)));
    assert_eq!(common(&first, &third), at(1, Some(0x200)));
    assert_eq!(common(&first, &first), at(1, None));
    assert_eq!(common(&second, &second), at(2, None));
    assert_eq!(common(&TimelineHistory::root(tli(7)), &first), None);
    assert!(first.is_ancestor_of(&second));
    assert!(second.is_ancestor_of(&second));
    assert!(!second.is_ancestor_of(&first));
    assert!(!second.is_ancestor_of(&third));
}

#[test]
fn the_same_number_that_began_elsewhere_is_another_timeline() {
    let root = TimelineHistory::root(tli(1));
    let one = root.append(tli(2), Lsn(0x300), "a").unwrap();
    let other = root.append(tli(2), Lsn(0x400), "b").unwrap();
    assert_eq!(
        one.common_point(&other),
        Some(CommonPoint { timeline: tli(1), end: Some(Lsn(0x300)) })
    );
}

#[test]
fn a_reason_with_a_line_break_stays_on_its_line() {
    let second = TimelineHistory::root(tli(1)).append(tli(2), Lsn(1), "a\nb\tc").unwrap();
    assert_eq!(second.render(), "1\t0/1\ta b c\n");
}

fn any_history() -> impl Strategy<Value = TimelineHistory> {
    prop::collection::vec((1u32..4, 0u64..1 << 40, "[a-z]{0,8}"), 0..6).prop_map(|steps| {
        let mut now = TimelineHistory::root(TimelineId::FIRST);
        let mut end = Lsn(1);
        for (step, bytes, reason) in steps {
            end = end.saturating_add(bytes);
            now = now.append(tli(now.timeline().get() + step), end, &reason).unwrap();
        }
        now
    })
}

proptest! {
    #[test]
    fn text_round_trips(written in any_history()) {
        let read = TimelineHistory::parse(written.timeline(), &written.render());
        prop_assert_eq!(read, Ok(written));
    }

    #[test]
    fn the_common_point_is_the_same_from_both_sides(a in any_history(), b in any_history()) {
        let point = a.common_point(&b);
        prop_assert_eq!(point, b.common_point(&a));
        if let Some(CommonPoint { timeline, end: Some(end) }) = point {
            prop_assert!(a.contains(timeline, end) && b.contains(timeline, end));
        }
    }

    #[test]
    fn every_position_lies_on_its_own_timeline(a in any_history(), at: u64) {
        prop_assert!(a.contains(a.timeline_at(Lsn(at)), Lsn(at)));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "(?s).{0,200}", number in 1u32..) {
        let _ = TimelineHistory::parse(tli(number), &text);
    }
}
