//! Kubernetes' quantities: `500m`, `1.5Gi`, `1e3`.

/// A quantity in billionths of its unit, so that sums and comparisons are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

const BILLION: i128 = 1_000_000_000;

impl Amount {
    /// Reads a quantity; none if the text is none or does not fit.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end =
            unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        // Kubernetes rounds what is finer than a billionth; so small a part changes no comparison here.
        let fraction: String = fraction.chars().take(9).collect();
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let shift = i32::try_from(fraction.len()).ok()?;
        let (multiplier, exponent) = scale(suffix)?;
        let value = scaled(digits.checked_mul(multiplier)?, 9 + exponent - shift)?;
        Some(Self(if negative { -value } else { value }))
    }

    /// The quantity in whole units, rounded up; none if it is negative or too great.
    pub fn units(self) -> Option<u64> {
        if self.0 < 0 {
            return None;
        }
        u64::try_from(self.0.checked_add(BILLION - 1)? / BILLION).ok()
    }

    /// True for zero and less.
    pub fn is_none_or_less(self) -> bool {
        self.0 <= 0
    }
}

/// Multiplier and power of ten of a suffix.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|e| (-30..=30).contains(e))?),
    })
}

fn scaled(value: i128, exponent: i32) -> Option<i128> {
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    if exponent >= 0 { value.checked_mul(power) } else { Some(value / power) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        let units = |text: &str| Amount::parse(text).unwrap().units().unwrap();
        assert_eq!(units("1Gi"), 1 << 30);
        assert_eq!(units("1.5Gi"), 3 << 29);
        assert_eq!(units("16M"), 16_000_000);
        assert_eq!(units("500m"), 1);
        assert_eq!(units("1e3"), 1000);
        assert_eq!(units("0"), 0);
        for text in ["", "Gi", "1gi", "1.2.3", "1 Gi", "--1", "1e99", "1Gib", &"9".repeat(60)] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }

    #[test]
    fn quantities_in_different_units_compare() {
        assert!(Amount::parse("1001m") > Amount::parse("1"));
        assert!(Amount::parse("1024Mi") == Amount::parse("1Gi"));
        assert!(Amount::parse("-1").unwrap().is_none_or_less());
        assert_eq!(Amount::parse("-1").unwrap().units(), None);
    }
}
