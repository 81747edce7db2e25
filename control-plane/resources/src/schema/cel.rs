//! cel: durations and numbers of bytes in the expressions of the API server.
//!
//! `duration()` reads what Go writes, `quantity()` what Kubernetes does; neither is as strict as the
//! reader, so that the form is compared first. Of ISO 8601 weeks and days are counted apart, the
//! rest is Go's own in lower case. A fraction of weeks or days, which ISO 8601 lets the last
//! part have, is beyond these functions: such a text passes here, and the reader judges it. Parts are cut
//! out by `find`, whose result is no longer than its text; `replace` is taken to make texts grow.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::duration::print_go;

/// ISO 8601 without years and months; that one part stands, and one behind a `T`, is asked apart.
const ISO: &str = r"P([0-9]{1,9}([.][0-9]{1,9})?W)?([0-9]{1,9}([.][0-9]{1,9})?D)?(T([0-9]{1,9}([.][0-9]{1,9})?H)?([0-9]{1,9}([.][0-9]{1,9})?M)?([0-9]{1,9}([.][0-9]{1,3}0{0,6})?S)?)?";
/// Go's durations down to a millisecond.
const GO: &str =
    r"0|([0-9]{1,9}([.][0-9]{1,9})?[hm]|[0-9]{1,9}([.][0-9]{1,3}0{0,6})?s|[0-9]{1,9}([.]0{1,9})?ms)+";
/// GEP-2257.
const GATEWAY: &str = "([0-9]{1,5}(h|m|s|ms)){1,4}";
/// Numbers of bytes.
const BYTES: &str = r"[0-9]{1,19}([.][0-9]{1,19})?(Ki|Mi|Gi|Ti|k|M|G|T)?";

/// Whether `text` is a duration.
fn is_duration(text: &str) -> String {
    format!("{text}.matches(r'^({ISO}|{GO})$') && !{text}.matches('[PT]$')")
}

/// Whether `text`, a duration, is one that cannot be computed with.
fn is_beyond(text: &str) -> String {
    format!("{text}.matches('[.][0-9]+[WD]')")
}

/// The milliseconds that `text`, a duration, stands for. Numbers are added, not texts: a number made text
/// is as long as can be for whoever counts the cost.
fn millis(text: &str) -> String {
    let part =
        |unit: &str, millis: u32| format!("int('0' + {text}.find('[0-9]+{unit}').find('[0-9]+')) * {millis}");
    let (weeks, days) = (part("W", 604_800_000), part("D", 86_400_000));
    let rest = format!("duration('0s' + {text}.find('T.*').find('[^T]+').lowerAscii()).getMilliseconds()");
    format!("({text}.startsWith('P') ? {weeks} + {days} + {rest} : duration({text}).getMilliseconds())")
}

/// Whether `self` is a duration of `allowed`.
pub(super) fn duration_in(allowed: &RangeInclusive<Duration>) -> String {
    let (form, beyond, value) = (is_duration("self"), is_beyond("self"), millis("self"));
    let upper = format!("{value} <= {}", allowed.end().as_millis());
    let inside = match allowed.start().as_millis() {
        0 => upper,
        least => format!("{value} >= {least} && {upper}"),
    };
    format!("{form} && ({beyond} || {inside})")
}

/// Whether `self` is a duration of the Gateway API, of `allowed`.
pub(super) fn gateway_duration_in(allowed: &RangeInclusive<Duration>) -> String {
    let (least, most) = (print_go(*allowed.start()), print_go(*allowed.end()));
    format!(
        "self.matches('^{GATEWAY}$') && duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
    )
}

/// Whether the duration `short` is not longer than `long`; true where one of them is none.
pub(crate) fn not_longer(short: &str, long: &str) -> String {
    let whole = |text: &str| format!("({}) && !{}", is_duration(text), is_beyond(text));
    let (short_is, long_is) = (whole(short), whole(long));
    format!("!({short_is} && {long_is}) || {} <= {}", millis(short), millis(long))
}

/// Whether `self` is a number of bytes of `allowed`. What is no whole number counts as the next one.
pub(super) fn bytes_in(allowed: &RangeInclusive<u64>) -> String {
    let upper = format!("!quantity(string(self)).isGreaterThan(quantity('{}'))", allowed.end());
    let form = format!("string(self).matches('^{BYTES}$')");
    match allowed.start().checked_sub(1) {
        None => format!("{form} && {upper}"),
        Some(below) => {
            format!("{form} && quantity(string(self)).isGreaterThan(quantity('{below}')) && {upper}")
        }
    }
}

/// Whether the number of bytes `large` is not below `small`; true where one of them is none.
pub(crate) fn bytes_at_least(large: &str, small: &str) -> String {
    let is = |value: &str| format!("string({value}).matches('^{BYTES}$')");
    let (large_is, small_is) = (is(large), is(small));
    format!("!({large_is} && {small_is}) || !quantity(string({large})).isLessThan(quantity(string({small})))")
}
