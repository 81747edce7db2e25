//! pki: the certificates of a cluster's components, and how each finds the API server.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Result;
use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};

/// The API server's port.
pub(crate) const API_PORT: u16 = 6443;
/// The Service `kubernetes`: the first address of the Services' network.
const API_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Who asks the API server, by the names Kubernetes' own rules give rights to.
const CLIENTS: [(&str, &str, Option<&str>); 5] = [
    ("apiserver-kubelet", "kube-apiserver", Some("system:masters")),
    ("proxy", "system:kube-proxy", None),
    ("admin", "kubernetes-admin", Some("system:masters")),
    ("controllers", "system:kube-controller-manager", None),
    ("scheduler", "system:kube-scheduler", None),
];

/// A folder of keys and certificates.
pub(crate) struct Pki {
    folder: PathBuf,
    control: Ipv4Addr,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    /// Makes everything a control plane at this address needs.
    pub(crate) fn make(folder: &Path, control: Ipv4Addr) -> Result<Self> {
        let pki = Self { folder: folder.join("pki"), control, ca: authority("kubernetes-ca")? };
        std::fs::create_dir(&pki.folder)?;
        pki.write("ca", pki.ca.der(), pki.ca.key())?;
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        pki.server("apiserver", "kube-apiserver", &[Ipv4Addr::LOCALHOST, control, API_SERVICE], &names)?;
        for (file, name, group) in CLIENTS {
            pki.client(file, name, group)?;
        }
        // Signs the tokens of service accounts.
        let tokens = KeyPair::generate()?;
        std::fs::write(pki.file("tokens.key"), pem("PRIVATE KEY", &tokens.serialize_der()))?;
        std::fs::write(pki.file("tokens.pub"), pem("PUBLIC KEY", &tokens.subject_public_key_info()))?;
        Ok(pki)
    }

    /// What the kubelet of this node serves and asks with.
    pub(crate) fn node(&self, name: &str, ip: Ipv4Addr) -> Result<()> {
        self.server(&format!("{name}-server"), &format!("system:node:{name}"), &[ip], &[name])?;
        self.client(name, &format!("system:node:{name}"), Some("system:nodes"))
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// How this client finds the API server and proves itself.
    pub(crate) fn kubeconfig(&self, client: &str) -> PathBuf {
        self.file(&format!("{client}.yaml"))
    }

    fn server(&self, file: &str, name: &str, addresses: &[Ipv4Addr], names: &[&str]) -> Result<()> {
        let mut params = named(name, None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let addresses = addresses.iter().map(|ip| SanType::IpAddress(IpAddr::V4(*ip)));
        params.subject_alt_names = addresses.collect();
        for name in names {
            params.subject_alt_names.push(SanType::DnsName((*name).try_into()?));
        }
        self.sign(file, &params)
    }

    fn client(&self, file: &str, name: &str, group: Option<&str>) -> Result<()> {
        let mut params = named(name, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, &params)?;
        Ok(std::fs::write(self.kubeconfig(file), self.config(file))?)
    }

    fn config(&self, client: &str) -> String {
        let file = |name: String| self.file(&name).display().to_string();
        format!(
            "apiVersion: v1
kind: Config
clusters: [{{name: here, cluster: {{server: \"https://{control}:{API_PORT}\", certificate-authority: {ca}}}}}]
users: [{{name: us, user: {{client-certificate: {pem}, client-key: {key}}}}}]
contexts: [{{name: here, context: {{cluster: here, user: us}}}}]
current-context: here
",
            control = self.control,
            ca = file("ca.pem".to_owned()),
            pem = file(format!("{client}.pem")),
            key = file(format!("{client}.key")),
        )
    }

    fn sign(&self, file: &str, params: &CertificateParams) -> Result<()> {
        let key = KeyPair::generate()?;
        self.write(file, params.signed_by(&key, &self.ca)?.der(), &key)
    }

    fn write(&self, file: &str, certificate: &[u8], key: &KeyPair) -> Result<()> {
        std::fs::write(self.file(&format!("{file}.pem")), pem("CERTIFICATE", certificate))?;
        std::fs::write(self.file(&format!("{file}.key")), pem("PRIVATE KEY", &key.serialize_der()))?;
        Ok(())
    }
}

fn authority(name: &str) -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = named(name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

fn named(name: &str, group: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
