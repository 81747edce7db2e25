//! tidy: the house's own rules, as tests.

mod arrows;
mod chart;
mod documents;
mod files;
mod generated;
mod house;
mod licences;
mod limits;
mod metrics;
