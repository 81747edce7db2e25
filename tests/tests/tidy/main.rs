//! tidy: the house's own rules, as tests.

mod generated;
