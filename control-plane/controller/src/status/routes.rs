//! routes: what there is to say of a route, parent by parent.

use resources::ParentRef;
use resources::conditions::{Condition, ConditionType, Reason, Truth};

use super::verdict::{Part, Verdict, Wrong, accepted, joined, resolved};
use crate::compile::{self, Fault};
use crate::documents::Need;
use crate::index::{AnyRoute, Index, Named, no_port};

/// Parents that are not Services are other controllers'.
pub(super) fn verdict(index: &Index, route: &AnyRoute) -> Verdict {
    let faults = compile::faults(index, route);
    let (values, references): (Vec<Wrong>, Vec<Wrong>) =
        faults.all.into_iter().map(wrong).partition(|wrong| wrong.reason == Reason::UnsupportedValue);
    let (values, references) = (joined(values.iter()), joined(references.iter()));
    let dead = values.clone().filter(|_| !faults.any_works);
    let said = |(service, parent): (Named, &ParentRef)| {
        let wrong = missing(index, &service, parent).or_else(|| dead.clone());
        let mut conditions =
            vec![accepted(wrong.as_ref(), "It is attached to the Service."), resolved(references.as_ref())];
        if let Some(values) = values.as_ref().filter(|_| wrong.is_none()) {
            conditions.push(partially_invalid(values));
        }
        let needs = wrong.is_none().then(|| vec![Need::Service(service)]);
        (parent.into(), Part { conditions, needs })
    };
    Verdict {
        generation: route.meta().generation,
        whole: None,
        parts: route.attachments().map(said).collect(),
    }
}

fn wrong(fault: Fault) -> Wrong {
    Wrong::new(fault.reason, fault.cause)
}

/// Why the parent is none to which a route could be attached.
fn missing(index: &Index, named: &Named, parent: &ParentRef) -> Option<Wrong> {
    let what = format!("Service {}/{}", named.0, named.1);
    let message = match index.service(named) {
        None => format!("there is no {what}"),
        Some(service) if service.external_name.is_some() => {
            format!("{what} is an ExternalName, whose requests are passed on as they are")
        }
        Some(service) => {
            let section = parent.section.as_deref();
            if service.ports.iter().any(|port| compile::is_meant(parent.port, section, port)) {
                return None;
            }
            match (parent.port, section) {
                (Some(port), None) => no_port(named, service, port),
                (_, Some(section)) => format!("{what} has no port named {section:?} that is meant"),
                (None, None) => format!("{what} has no port"),
            }
        }
    };
    Some(Wrong::new(Reason::NoMatchingParent, message))
}

fn partially_invalid(values: &Wrong) -> Condition {
    Condition {
        about: ConditionType::PartiallyInvalid,
        status: Truth::True,
        reason: values.reason,
        message: format!("Requests that meet these are answered 500: {}", values.message),
    }
}
