//! The first schema: everything an empty installation needs.
//!
//! A migration is never changed after a release: what comes later is a new one.

use sea_orm_migration::prelude::*;

use super::table;

/// The first schema.
pub struct First;

impl MigrationName for First {
    fn name(&self) -> &str {
        "m0001_first"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for First {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            table::create(manager, table).await?;
        }
        for (table, columns) in UNIQUE {
            manager
                .create_index(index(table, columns).unique().take())
                .await?;
        }
        for (table, columns) in INDEXES {
            manager.create_index(index(table, columns)).await?;
        }
        Ok(())
    }
}

fn index(table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut statement = Index::create();
    statement
        .name(format!("{table}_{}", columns.join("_")))
        .table(table);
    for column in columns {
        statement.col(*column);
    }
    statement.take()
}

/// What may exist once only. A column that is NULL in one of two rows does not make them equal,
/// on any of the databases: `live` uses that to let go of what is deleted.
const UNIQUE: &[(&str, &[&str])] = &[
    ("users", &["name"]),
    ("projects", &["name"]),
    ("backends", &["name"]),
    ("backends", &["mac_index"]),
    ("flavors", &["name"]),
    ("keypairs", &["user_id", "name"]),
    ("subnets", &["network_id", "ip_version", "live"]),
    ("addresses", &["subnet_id", "number", "live"]),
    ("backend_networks", &["network_id", "backend_id"]),
];

const INDEXES: &[(&str, &[&str])] = &[
    ("tokens", &["expires_at"]),
    ("tokens", &["user_id"]),
    ("servers", &["project_id", "deleted_at"]),
    ("servers", &["updated_at"]),
    ("servers", &["backend_id"]),
    ("diagnostics", &["server_id"]),
    ("volumes", &["server_id"]),
    ("networks", &["project_id"]),
    ("pool_values", &["network_id"]),
    ("addresses", &["port_id"]),
    ("addresses", &["project_id"]),
    ("ports", &["server_id"]),
    ("ports", &["network_id"]),
    ("ports", &["project_id"]),
    ("intents", &["state", "claimed_until"]),
    ("intents", &["server_id"]),
    ("memberships", &["project_id"]),
];

fn refers(table: &str, column: &str, to: &str) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .name(format!("{table}_{column}_fk"))
        .from(Alias::new(table), Alias::new(column))
        .to(Alias::new(to), Alias::new("id"))
        .take()
}

fn tables() -> Vec<TableCreateStatement> {
    vec![
        users(),
        projects(),
        memberships(),
        tokens(),
        backends(),
        flavors(),
        images(),
        keypairs(),
        servers(),
        server_metadata(),
        diagnostics(),
        volumes(),
        networks(),
        pool_values(),
        subnets(),
        ports(),
        addresses(),
        backend_networks(),
        intents(),
    ]
}

fn users() -> TableCreateStatement {
    Table::create()
        .table("users")
        .col(ColumnDef::new("id").string_len(64).not_null())
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("email").string_len(255))
        .col(ColumnDef::new("password_hash").string_len(255))
        .col(ColumnDef::new("enabled").boolean().not_null())
        .col(ColumnDef::new("admin").boolean().not_null())
        .col(ColumnDef::new("project_id").string_len(64).not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .primary_key(Index::create().col("id"))
        .take()
}

fn projects() -> TableCreateStatement {
    Table::create()
        .table("projects")
        .col(ColumnDef::new("id").string_len(64).not_null())
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("enabled").boolean().not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .primary_key(Index::create().col("id"))
        .take()
}

fn memberships() -> TableCreateStatement {
    Table::create()
        .table("memberships")
        .col(ColumnDef::new("user_id").string_len(64).not_null())
        .col(ColumnDef::new("project_id").string_len(64).not_null())
        .col(ColumnDef::new("role").string_len(255).not_null())
        .primary_key(Index::create().col("user_id").col("project_id"))
        .foreign_key(&mut refers("memberships", "user_id", "users"))
        .foreign_key(&mut refers("memberships", "project_id", "projects"))
        .take()
}

fn tokens() -> TableCreateStatement {
    Table::create()
        .table("tokens")
        .col(ColumnDef::new("digest").string_len(64).not_null())
        .col(ColumnDef::new("user_id").string_len(64).not_null())
        .col(ColumnDef::new("project_id").string_len(64))
        .col(ColumnDef::new("issued_at").big_integer().not_null())
        .col(ColumnDef::new("expires_at").big_integer().not_null())
        .primary_key(Index::create().col("digest"))
        .foreign_key(&mut refers("tokens", "user_id", "users"))
        .take()
}

fn backends() -> TableCreateStatement {
    Table::create()
        .table("backends")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("url").string_len(255).not_null())
        .col(ColumnDef::new("username").string_len(255).not_null())
        .col(ColumnDef::new("password_file").string_len(255).not_null())
        .col(ColumnDef::new("ca_file").string_len(255))
        .col(ColumnDef::new("insecure").boolean().not_null())
        .col(ColumnDef::new("mac_index").integer().not_null())
        .col(ColumnDef::new("offline").boolean().not_null())
        .col(ColumnDef::new("drained").boolean().not_null())
        .col(ColumnDef::new("hvparams").json().not_null())
        .col(ColumnDef::new("os_params").json().not_null())
        .col(ColumnDef::new("disk_templates").json().not_null())
        .col(ColumnDef::new("memory_total").big_integer().not_null())
        .col(ColumnDef::new("memory_free").big_integer().not_null())
        .col(ColumnDef::new("disk_total").big_integer().not_null())
        .col(ColumnDef::new("disk_free").big_integer().not_null())
        .col(ColumnDef::new("cpus").big_integer().not_null())
        .col(ColumnDef::new("instances").big_integer().not_null())
        .col(ColumnDef::new("measured_at").big_integer())
        .col(ColumnDef::new("version").string_len(255))
        .col(ColumnDef::new("cluster").string_len(255))
        .take()
}

fn flavors() -> TableCreateStatement {
    Table::create()
        .table("flavors")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("vcpus").big_integer().not_null())
        .col(ColumnDef::new("ram").big_integer().not_null())
        .col(ColumnDef::new("disk").big_integer().not_null())
        .col(ColumnDef::new("disk_template").string_len(255).not_null())
        .col(ColumnDef::new("disk_provider").string_len(255))
        .col(ColumnDef::new("public").boolean().not_null())
        .col(ColumnDef::new("allow_create").boolean().not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("deleted_at").big_integer())
        .take()
}

fn images() -> TableCreateStatement {
    Table::create()
        .table("images")
        .col(ColumnDef::new("id").string_len(64).not_null())
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("os").string_len(255).not_null())
        .col(ColumnDef::new("os_params").json().not_null())
        .col(ColumnDef::new("source").string_len(255).not_null())
        .col(ColumnDef::new("format").string_len(255).not_null())
        .col(ColumnDef::new("size").big_integer().not_null())
        .col(ColumnDef::new("checksum").string_len(255))
        .col(ColumnDef::new("properties").json().not_null())
        .col(ColumnDef::new("status").string_len(255).not_null())
        .col(ColumnDef::new("user_id").string_len(64))
        .col(ColumnDef::new("project_id").string_len(64))
        .col(ColumnDef::new("public").boolean().not_null())
        .col(ColumnDef::new("min_ram").big_integer().not_null())
        .col(ColumnDef::new("min_disk").big_integer().not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("updated_at").big_integer().not_null())
        .col(ColumnDef::new("deleted_at").big_integer())
        .primary_key(Index::create().col("id"))
        .take()
}

fn keypairs() -> TableCreateStatement {
    Table::create()
        .table("keypairs")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("user_id").string_len(64).not_null())
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("public_key").text().not_null())
        .col(ColumnDef::new("fingerprint").string_len(255).not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .foreign_key(&mut refers("keypairs", "user_id", "users"))
        .take()
}

fn servers() -> TableCreateStatement {
    Table::create()
        .table("servers")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("user_id").string_len(64).not_null())
        .col(ColumnDef::new("project_id").string_len(64).not_null())
        .col(ColumnDef::new("flavor_id").big_integer().not_null())
        .col(ColumnDef::new("image_id").string_len(64).not_null())
        .col(ColumnDef::new("backend_id").big_integer().not_null())
        .col(ColumnDef::new("key_name").string_len(255))
        .col(ColumnDef::new("state").string_len(255).not_null())
        .col(ColumnDef::new("progress").integer().not_null())
        .col(ColumnDef::new("task").string_len(255))
        .col(ColumnDef::new("task_intent").big_integer())
        .col(ColumnDef::new("task_job").big_integer())
        .col(ColumnDef::new("suspended").boolean().not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("updated_at").big_integer().not_null())
        .col(ColumnDef::new("deleted_at").big_integer())
        .col(ColumnDef::new("job_id").big_integer().not_null())
        .col(ColumnDef::new("job_rank").integer().not_null())
        .col(ColumnDef::new("job_time").big_integer().not_null())
        .col(ColumnDef::new("job_opcode").string_len(255))
        .col(ColumnDef::new("job_status").string_len(255))
        .col(ColumnDef::new("job_log").text())
        .col(ColumnDef::new("state_job").big_integer().not_null())
        .col(ColumnDef::new("state_rank").integer().not_null())
        .col(ColumnDef::new("state_time").big_integer().not_null())
        .col(ColumnDef::new("nics_job").big_integer().not_null())
        .col(ColumnDef::new("nics_rank").integer().not_null())
        .col(ColumnDef::new("nics_time").big_integer().not_null())
        .col(ColumnDef::new("shape_job").big_integer().not_null())
        .col(ColumnDef::new("shape_rank").integer().not_null())
        .col(ColumnDef::new("shape_time").big_integer().not_null())
        .foreign_key(&mut refers("servers", "project_id", "projects"))
        .foreign_key(&mut refers("servers", "flavor_id", "flavors"))
        .foreign_key(&mut refers("servers", "image_id", "images"))
        .foreign_key(&mut refers("servers", "backend_id", "backends"))
        .take()
}

fn server_metadata() -> TableCreateStatement {
    Table::create()
        .table("server_metadata")
        .col(ColumnDef::new("server_id").big_integer().not_null())
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("value").text().not_null())
        .primary_key(Index::create().col("server_id").col("name"))
        .foreign_key(&mut refers("server_metadata", "server_id", "servers"))
        .take()
}

fn diagnostics() -> TableCreateStatement {
    Table::create()
        .table("diagnostics")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("server_id").big_integer().not_null())
        .col(ColumnDef::new("level").string_len(255).not_null())
        .col(ColumnDef::new("source").string_len(255).not_null())
        .col(ColumnDef::new("message").text().not_null())
        .col(ColumnDef::new("details").text())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("source_time").big_integer())
        .foreign_key(&mut refers("diagnostics", "server_id", "servers"))
        .take()
}

fn volumes() -> TableCreateStatement {
    Table::create()
        .table("volumes")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("server_id").big_integer().not_null())
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("user_id").string_len(64).not_null())
        .col(ColumnDef::new("project_id").string_len(64).not_null())
        .col(ColumnDef::new("size").big_integer().not_null())
        .col(ColumnDef::new("disk_index").integer().not_null())
        .col(ColumnDef::new("status").string_len(255).not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("updated_at").big_integer().not_null())
        .col(ColumnDef::new("deleted_at").big_integer())
        .foreign_key(&mut refers("volumes", "server_id", "servers"))
        .take()
}

fn networks() -> TableCreateStatement {
    Table::create()
        .table("networks")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("user_id").string_len(64))
        .col(ColumnDef::new("project_id").string_len(64))
        .col(ColumnDef::new("kind").string_len(255).not_null())
        .col(ColumnDef::new("mode").string_len(255).not_null())
        .col(ColumnDef::new("link").string_len(255).not_null())
        .col(ColumnDef::new("mac_prefix").string_len(255).not_null())
        .col(ColumnDef::new("tags").json().not_null())
        .col(ColumnDef::new("public").boolean().not_null())
        .col(ColumnDef::new("external_router").boolean().not_null())
        .col(ColumnDef::new("floating_ip_pool").boolean().not_null())
        .col(ColumnDef::new("drained").boolean().not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("updated_at").big_integer().not_null())
        .col(ColumnDef::new("deleted_at").big_integer())
        .take()
}

fn pool_values() -> TableCreateStatement {
    Table::create()
        .table("pool_values")
        .col(ColumnDef::new("pool").string_len(255).not_null())
        .col(ColumnDef::new("value").big_integer().not_null())
        .col(ColumnDef::new("network_id").big_integer().not_null())
        .primary_key(Index::create().col("pool").col("value"))
        .foreign_key(&mut refers("pool_values", "network_id", "networks"))
        .take()
}

fn subnets() -> TableCreateStatement {
    Table::create()
        .table("subnets")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("network_id").big_integer().not_null())
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("ip_version").integer().not_null())
        .col(ColumnDef::new("cidr").string_len(255).not_null())
        .col(ColumnDef::new("gateway").string_len(255))
        .col(ColumnDef::new("dhcp").boolean().not_null())
        .col(ColumnDef::new("slaac").boolean().not_null())
        .col(ColumnDef::new("dns").json().not_null())
        .col(ColumnDef::new("host_routes").json().not_null())
        .col(ColumnDef::new("pools").json().not_null())
        .col(ColumnDef::new("live").boolean())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("updated_at").big_integer().not_null())
        .col(ColumnDef::new("deleted_at").big_integer())
        .foreign_key(&mut refers("subnets", "network_id", "networks"))
        .take()
}

fn addresses() -> TableCreateStatement {
    Table::create()
        .table("addresses")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("subnet_id").big_integer().not_null())
        .col(ColumnDef::new("network_id").big_integer().not_null())
        .col(ColumnDef::new("number").big_integer().not_null())
        .col(ColumnDef::new("address").string_len(255).not_null())
        .col(ColumnDef::new("floating").boolean().not_null())
        .col(ColumnDef::new("user_id").string_len(64).not_null())
        .col(ColumnDef::new("project_id").string_len(64).not_null())
        .col(ColumnDef::new("port_id").big_integer())
        .col(ColumnDef::new("live").boolean())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("updated_at").big_integer().not_null())
        .col(ColumnDef::new("deleted_at").big_integer())
        .foreign_key(&mut refers("addresses", "subnet_id", "subnets"))
        .foreign_key(&mut refers("addresses", "network_id", "networks"))
        .foreign_key(&mut refers("addresses", "port_id", "ports"))
        .take()
}

fn ports() -> TableCreateStatement {
    Table::create()
        .table("ports")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("name").string_len(255).not_null())
        .col(ColumnDef::new("user_id").string_len(64).not_null())
        .col(ColumnDef::new("project_id").string_len(64).not_null())
        .col(ColumnDef::new("network_id").big_integer().not_null())
        .col(ColumnDef::new("server_id").big_integer())
        .col(ColumnDef::new("state").string_len(255).not_null())
        .col(ColumnDef::new("nic_index").integer())
        .col(ColumnDef::new("mac").string_len(255))
        .col(ColumnDef::new("ipv4").string_len(255))
        .col(ColumnDef::new("ipv6").string_len(255))
        .col(ColumnDef::new("firewall").string_len(255))
        .col(ColumnDef::new("floating").boolean().not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("updated_at").big_integer().not_null())
        .col(ColumnDef::new("deleted_at").big_integer())
        .foreign_key(&mut refers("ports", "network_id", "networks"))
        .foreign_key(&mut refers("ports", "server_id", "servers"))
        .take()
}

fn backend_networks() -> TableCreateStatement {
    Table::create()
        .table("backend_networks")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("network_id").big_integer().not_null())
        .col(ColumnDef::new("backend_id").big_integer().not_null())
        .col(ColumnDef::new("state").string_len(255).not_null())
        .col(ColumnDef::new("jobs").json().not_null())
        .col(ColumnDef::new("claimed_until").big_integer().not_null())
        .col(ColumnDef::new("job_id").big_integer().not_null())
        .col(ColumnDef::new("job_rank").integer().not_null())
        .col(ColumnDef::new("job_time").big_integer().not_null())
        .col(ColumnDef::new("job_opcode").string_len(255))
        .foreign_key(&mut refers("backend_networks", "network_id", "networks"))
        .foreign_key(&mut refers("backend_networks", "backend_id", "backends"))
        .take()
}

fn intents() -> TableCreateStatement {
    Table::create()
        .table("intents")
        .col(
            ColumnDef::new("id")
                .big_integer()
                .not_null()
                .auto_increment()
                .primary_key(),
        )
        .col(ColumnDef::new("backend_id").big_integer().not_null())
        .col(ColumnDef::new("kind").string_len(255).not_null())
        .col(ColumnDef::new("server_id").big_integer())
        .col(ColumnDef::new("port_id").big_integer())
        .col(ColumnDef::new("request").json().not_null())
        .col(ColumnDef::new("state").string_len(255).not_null())
        .col(ColumnDef::new("job_id").big_integer())
        .col(ColumnDef::new("attempts").integer().not_null())
        .col(ColumnDef::new("error").text())
        .col(ColumnDef::new("claimed_until").big_integer().not_null())
        .col(ColumnDef::new("created_at").big_integer().not_null())
        .col(ColumnDef::new("submitted_at").big_integer())
        .foreign_key(&mut refers("intents", "backend_id", "backends"))
        .take()
}
