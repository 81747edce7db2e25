//! samples: what `manifests/samples` shows is right, one by one and together.

use super::*;

#[test]
fn every_sample_is_right_and_every_kind_of_ours_has_one() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/samples");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let (objects, problems) =
            parse_file(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap());
        assert_eq!(problems, [], "{}", path.display());
        all.extend(objects);
    }
    assert_eq!(validate_all(&all), []);
    for definition in crds() {
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap();
        assert!(all.iter().any(|object| object.value.kind() == kind), "no sample of {kind}");
    }
    let filtered = all.iter().any(|object| match &object.value {
        Object::HttpRoute(route) => {
            let filters = route.rules.iter().flat_map(|rule| &rule.filters);
            filters.into_iter().any(|filter| matches!(filter, Filter::Asynchronous(_)))
        }
        _ => false,
    });
    assert!(filtered, "no sample of a route with an AsyncPolicy's filter");
}
