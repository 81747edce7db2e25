//! quantity: numbers of bytes as Kubernetes writes them.

/// Units, the large ones first, so that printing finds the largest that divides.
const UNITS: [(&str, u64); 8] = [
    ("Ti", 1 << 40),
    ("Gi", 1 << 30),
    ("Mi", 1 << 20),
    ("Ki", 1 << 10),
    ("T", 1_000_000_000_000),
    ("G", 1_000_000_000),
    ("M", 1_000_000),
    ("k", 1000),
];

/// Why a text is not a number of bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a number of bytes: write \"256Mi\", with Ki, Mi, Gi, Ti, k, M, G or T, or none")]
pub struct QuantityError(String);

/// Reads `256Mi`, `1.5Gi`, `4096`; what is no whole number of bytes is rounded up.
///
/// # Errors
/// [`QuantityError`] for everything else, exponents and numbers past 64 bits included.
pub fn parse_bytes(text: &str) -> Result<u64, QuantityError> {
    let found = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)));
    let (number, unit) = found.unwrap_or((text, 1));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let read = |digits: &str| -> Option<u128> {
        let right = (1..=19).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        if right { digits.parse().ok() } else { None }
    };
    let bytes = || {
        // 19 digits of fraction at 2^40 stay below 2^104.
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?.min(19));
        let part = (read(fraction)? * u128::from(unit)).div_ceil(scale);
        u64::try_from(read(whole)? * u128::from(unit) + part).ok()
    };
    bytes().ok_or_else(|| QuantityError(text.to_owned()))
}

/// `bytes` with the largest binary unit that divides it.
#[must_use]
pub fn print_bytes(bytes: u64) -> String {
    let binary = UNITS.iter().filter(|(name, _)| name.ends_with('i'));
    match binary.into_iter().find(|(_, unit)| bytes != 0 && bytes.is_multiple_of(*unit)) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_kubernetes_writes_them_and_printed_in_one_way() {
        for (text, bytes, printed) in [
            ("0", 0, "0"),
            ("1", 1, "1"),
            ("256Mi", 256 << 20, "256Mi"),
            ("1.5Gi", 1536 << 20, "1536Mi"),
            ("2k", 2000, "2000"),
            ("1M", 1_000_000, "1000000"),
            ("0.3", 1, "1"),
            ("1024", 1024, "1Ki"),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
            assert_eq!(print_bytes(bytes), printed);
            assert_eq!(parse_bytes(printed).unwrap(), bytes);
        }
        for bad in
            ["", "Mi", "-1", "1e6", "1m", "1K", "1 Mi", "1.", ".5", "1.2.3", "99999999999999999Ti", "256MB"]
        {
            assert!(parse_bytes(bad).is_err(), "{bad:?} passed");
        }
    }
}
