//! routes: every route by the Services it is attached to and by those it sends to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::name::Label;
use resources::{BackendRef, Filter, GrpcRoute, HttpRoute, Meta, ParentRef};

use super::{Named, within};

/// A route as one of its parents names it.
#[derive(Debug, Clone)]
pub(crate) struct Attached {
    /// The route.
    pub(crate) route: AnyRoute,
    /// One port alone, by number.
    pub(crate) port: Option<u16>,
    /// One port alone, by name.
    pub(crate) section: Option<String>,
}

/// A route of either kind.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum AnyRoute {
    /// HTTP.
    Http(Arc<HttpRoute>),
    /// gRPC.
    Grpc(Arc<GrpcRoute>),
}

/// Kind of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Http,
    Grpc,
}

impl AnyRoute {
    /// What it carries as every object does.
    pub(crate) fn meta(&self) -> &Meta {
        match self {
            Self::Http(route) => &route.meta,
            Self::Grpc(route) => &route.meta,
        }
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.meta().namespace.as_str()
    }

    fn parents(&self) -> &[ParentRef] {
        match self {
            Self::Http(route) => &route.parents,
            Self::Grpc(route) => &route.parents,
        }
    }

    /// The Services it is attached to, each as often as it is named.
    pub(crate) fn attachments(&self) -> impl Iterator<Item = (Named, &ParentRef)> {
        self.parents().iter().filter(|parent| parent.is_service()).map(|parent| {
            let namespace = parent.namespace.as_ref().map_or(self.namespace(), Label::as_str);
            ((namespace.to_owned(), parent.name.clone()), parent)
        })
    }

    /// The Services its rules send to.
    fn targets(&self) -> BTreeSet<Named> {
        let target = |reference: &BackendRef| {
            let namespace = reference.namespace.as_ref().map_or(self.namespace(), Label::as_str);
            (namespace.to_owned(), reference.name.clone())
        };
        match self {
            Self::Http(route) => route.rules.iter().flat_map(|rule| &rule.backends).map(target).collect(),
            Self::Grpc(route) => route.rules.iter().flat_map(|rule| &rule.backends).map(target).collect(),
        }
    }

    /// Whether a rule has this name.
    pub(crate) fn has_rule(&self, name: &str) -> bool {
        let is_it = |own: &Option<String>| own.as_deref() == Some(name);
        match self {
            Self::Http(route) => route.rules.iter().any(|rule| is_it(&rule.name)),
            Self::Grpc(route) => route.rules.iter().any(|rule| is_it(&rule.name)),
        }
    }

    fn names_policy(&self, name: &str) -> bool {
        let names = |filters: &[Filter]| {
            filters.iter().any(|filter| matches!(filter, Filter::Asynchronous(own) if own == name))
        };
        match self {
            Self::Http(route) => route.rules.iter().any(|rule| names(&rule.filters)),
            Self::Grpc(route) => route.rules.iter().any(|rule| names(&rule.filters)),
        }
    }
}

/// All routes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    all: BTreeMap<Named, BTreeMap<Kind, AnyRoute>>,
    attached: BTreeMap<Named, Vec<Attached>>,
    /// By the Services that routes send to.
    referrers: BTreeMap<Named, BTreeSet<(Named, Kind)>>,
}

impl Routes {
    /// Routes attached to a Service.
    pub(super) fn attached(&self, service: &Named) -> &[Attached] {
        self.attached.get(service).map_or(&[], Vec::as_slice)
    }

    /// The route of this kind and name.
    pub(super) fn named(&self, named: &Named, kind: Kind) -> Option<&AnyRoute> {
        self.all.get(named)?.get(&kind)
    }

    /// Puts `new` in the place of what has this name; returns the Services it is or was attached to,
    /// none when it is as it was.
    pub(super) fn swap(&mut self, named: &Named, kind: Kind, new: Option<AnyRoute>) -> BTreeSet<Named> {
        let old = self.all.get_mut(named).and_then(|kinds| kinds.remove(&kind));
        if old == new {
            if let Some(old) = old {
                self.all.entry(named.clone()).or_default().insert(kind, old);
            }
            return BTreeSet::new();
        }
        let mut touched = BTreeSet::new();
        if let Some(old) = &old {
            self.detach(named, kind, old, &mut touched);
        }
        match new {
            Some(new) => self.attach(named, kind, new, &mut touched),
            None if self.all.get(named).is_some_and(BTreeMap::is_empty) => {
                self.all.remove(named);
            }
            None => {}
        }
        touched
    }

    fn detach(&mut self, named: &Named, kind: Kind, old: &AnyRoute, touched: &mut BTreeSet<Named>) {
        for (service, _) in old.attachments() {
            if let Some(attached) = self.attached.get_mut(&service) {
                attached.retain(|attached| attached.route != *old);
                if attached.is_empty() {
                    self.attached.remove(&service);
                }
            }
            touched.insert(service);
        }
        for target in old.targets() {
            if let Some(referrers) = self.referrers.get_mut(&target) {
                referrers.remove(&(named.clone(), kind));
                if referrers.is_empty() {
                    self.referrers.remove(&target);
                }
            }
        }
    }

    fn attach(&mut self, named: &Named, kind: Kind, new: AnyRoute, touched: &mut BTreeSet<Named>) {
        for (service, parent) in new.attachments() {
            let attached =
                Attached { route: new.clone(), port: parent.port, section: parent.section.clone() };
            self.attached.entry(service.clone()).or_default().push(attached);
            touched.insert(service);
        }
        for target in new.targets() {
            self.referrers.entry(target).or_default().insert((named.clone(), kind));
        }
        self.all.entry(named.clone()).or_default().insert(kind, new);
    }

    /// Services to which routes are attached that send to `target`.
    pub(super) fn parents_of_referrers(&self, target: &Named) -> BTreeSet<Named> {
        self.parents(self.referrers.get(target).into_iter().flatten())
    }

    /// Services to which routes are attached that send into `namespace` from elsewhere.
    pub(super) fn parents_of_foreign_referrers(&self, namespace: &str) -> BTreeSet<Named> {
        let referrers = within(&self.referrers, namespace).flat_map(|(_, referrers)| referrers);
        self.parents(referrers.filter(|(named, _)| named.0 != namespace))
    }

    fn parents<'a>(&'a self, routes: impl Iterator<Item = &'a (Named, Kind)>) -> BTreeSet<Named> {
        let routes = routes.filter_map(|(named, kind)| self.all.get(named)?.get(kind));
        routes.flat_map(AnyRoute::attachments).map(|(service, _)| service).collect()
    }

    /// Services to which the HTTPRoute of this name is attached.
    pub(super) fn parents_of_http(&self, named: &Named) -> BTreeSet<Named> {
        let route = self.all.get(named).and_then(|kinds| kinds.get(&Kind::Http));
        route.into_iter().flat_map(AnyRoute::attachments).map(|(service, _)| service).collect()
    }

    /// Services to which routes of `namespace` are attached that name the AsyncPolicy `policy`.
    pub(super) fn parents_of_policy(&self, namespace: &str, policy: &str) -> BTreeSet<Named> {
        let routes = within(&self.all, namespace).flat_map(|(_, kinds)| kinds.values());
        let naming = routes.filter(|route| route.names_policy(policy));
        naming.flat_map(AnyRoute::attachments).map(|(service, _)| service).collect()
    }

    /// Namespaces whose own routes replace those of this Service for their clients.
    pub(super) fn consumers(&self, service: &Named) -> BTreeSet<String> {
        let namespaces = self.attached(service).iter().map(|attached| attached.route.namespace());
        namespaces.filter(|namespace| *namespace != service.0).map(str::to_owned).collect()
    }
}
