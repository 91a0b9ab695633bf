//! `spec.managed`: roles and Services that the operator keeps.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ServiceSpec};

use crate::record::{record, words};

record! {
    /// Roles and Services that the operator keeps.
    pub struct Managed {
        /// Roles.
        roles "roles": Vec<RoleConfiguration>,
        /// Services.
        services "services": Option<ManagedServices>,
    }

    /// A role of PostgreSQL.
    pub struct RoleConfiguration {
        /// Its name.
        name "name": Option<String>,
        /// Its comment.
        comment "comment": Option<String>,
        /// Is it there.
        ensure "ensure": Option<Ensure>,
        /// Secret (kubernetes.io/basic-auth) with name and password; without it the password is left alone.
        password_secret "passwordSecret": Option<LocalObjectReference>,
        /// Greatest number of connections; -1 is no limit.
        connection_limit "connectionLimit": Option<i64>,
        /// Until when the password is good, RFC 3339.
        valid_until "validUntil": Option<String>,
        /// Roles of which it is a member.
        in_roles "inRoles": Vec<String>,
        /// Does it have the rights of these roles.
        inherit "inherit": Option<bool>,
        /// Set the password to NULL.
        disable_password "disablePassword": Option<bool>,
        /// SUPERUSER.
        superuser "superuser": Option<bool>,
        /// CREATEDB.
        createdb "createdb": Option<bool>,
        /// CREATEROLE.
        createrole "createrole": Option<bool>,
        /// LOGIN.
        login "login": Option<bool>,
        /// REPLICATION.
        replication "replication": Option<bool>,
        /// BYPASSRLS.
        bypassrls "bypassrls": Option<bool>,
    }

    /// Services.
    pub struct ManagedServices {
        /// Of `r` and `ro`, those that are not made.
        disabled_default_services "disabledDefaultServices": Vec<ServiceSelectorType>,
        /// More Services.
        additional "additional": Vec<ManagedService>,
    }

    /// A Service of the user's.
    pub struct ManagedService {
        /// Which instances.
        selector_type "selectorType": Option<ServiceSelectorType>,
        /// How a change is applied.
        update_strategy "updateStrategy": Option<ServiceUpdateStrategy>,
        /// What it is made from.
        service_template "serviceTemplate": Option<ServiceTemplate>,
    }

    /// What a Service is made from.
    pub struct ServiceTemplate {
        /// Its metadata.
        metadata "metadata": Option<TemplateMetadata>,
        /// Its spec, without a selector.
        spec "spec": Option<ServiceSpec>,
    }

    /// What a ServiceAccount is made from.
    pub struct ServiceAccountTemplate {
        /// Its metadata.
        metadata "metadata": Option<TemplateMetadata>,
    }

    /// Metadata of what is made.
    pub struct TemplateMetadata {
        /// Name, where one may be chosen.
        name "name": Option<String>,
        /// Labels.
        labels "labels": BTreeMap<String, String>,
        /// Annotations.
        annotations "annotations": BTreeMap<String, String>,
    }
}

words! {
    /// Is an object there.
    pub enum Ensure {
        /// Yes.
        Present = "present",
        /// No.
        Absent = "absent",
    }

    /// Which instances a Service leads to.
    pub enum ServiceSelectorType {
        /// The primary.
        Rw = "rw",
        /// Any.
        R = "r",
        /// Standbys.
        Ro = "ro",
    }

    /// How a change of a Service is applied.
    pub enum ServiceUpdateStrategy {
        /// In place.
        Patch = "patch",
        /// By a new one.
        Replace = "replace",
    }
}
