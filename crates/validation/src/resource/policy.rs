//! How much of a device's capacity one request may take.

use meta::Quantity;

use crate::FieldError;
use crate::node::{Findings, Node};

/// Most values that a request may choose from.
const MAX_VALUES: usize = 10;

/// The capacity of a device, and the policy of requests for it.
pub(crate) fn capacity(capacity: &Node<'_>, is_shared: bool, out: &mut Findings) {
    let policy = capacity.get("requestPolicy");
    if !policy.is_set() {
        return;
    }
    if !is_shared {
        out.push(policy.forbidden("allowMultipleAllocations must be true"));
        return;
    }
    let (values, range) = (policy.get("validValues"), policy.get("validRange"));
    if values.len() > 0 && range.is_set() {
        out.push(policy.forbidden(
            "exactly one policy can be specified, cannot specify \"validValues\" and \
             \"validRange\" at the same time",
        ));
        return;
    }
    let default = policy.get("default");
    for (is_set, name) in [(values.len() > 0, "validValues"), (range.is_set(), "validRange")] {
        if is_set && !default.is_set() {
            let detail = format!("required when {name} is defined");
            out.push(FieldError::required(&default.path, detail));
            return;
        }
    }
    let Some(total) = quantity(&capacity.get("value")) else { return };
    if values.len() > 0 {
        valid_values(&values, &default, total, out);
    } else if range.is_set() {
        valid_range(&range, &default, total, out);
    }
}

fn quantity(node: &Node<'_>) -> Option<Quantity> {
    node.text().parse().ok()
}

fn valid_values(values: &Node<'_>, default: &Node<'_>, total: Quantity, out: &mut Findings) {
    values.at_most(MAX_VALUES, out);
    let mut last: Option<Quantity> = None;
    for value in values.items() {
        let Some(this) = quantity(&value) else { continue };
        if last.is_some_and(|last| last >= this) {
            out.push(value.invalid("values must be sorted in ascending order"));
        }
        last = Some(this);
        if this > total {
            let detail = format!("option is larger than capacity value: {total}");
            out.push(values.invalid(detail));
        }
    }
    let wanted = quantity(default);
    if !values.items().any(|value| quantity(&value) == wanted) {
        out.push(default.invalid("default value is not valid according to the requestPolicy"));
    }
}

fn valid_range(range: &Node<'_>, default: &Node<'_>, total: Quantity, out: &mut Findings) {
    let (min, max, step) = (range.get("min"), range.get("max"), range.get("step"));
    let Some(least) = quantity(&min) else {
        out.push(FieldError::required(&min.path, "required when validRange is defined"));
        return;
    };
    let wanted = quantity(default).unwrap_or_default();
    if least > total {
        out.push(min.invalid(format!("min is larger than capacity value: {total}")));
    }
    if wanted < least {
        out.push(min.invalid(format!("default is less than min: {}", default.text())));
    }
    let most = quantity(&max);
    if let Some(most) = most {
        if least > most {
            out.push(max.invalid(format!("min is larger than max: {}", min.text())));
        }
        if most > total {
            out.push(max.invalid(format!("max is larger than capacity value: {total}")));
        }
        if wanted > most {
            out.push(max.invalid(format!("default is more than max: {}", default.text())));
        }
    }
    let Some(width) = quantity(&step) else { return };
    if least + width > total {
        let one = least + width;
        out.push(step.invalid(format!("one step {one} is larger than capacity value: {total}")));
    }
    for value in [Some(wanted), most].into_iter().flatten() {
        let rest = (value - least).milli_value();
        if width.milli_value() > 0 && rest % width.milli_value() != 0 {
            out.push(step.invalid(format!(
                "value is not a multiple of a given step ({}) from ({})",
                step.text(),
                min.text()
            )));
        }
    }
}
