export interface UnitOptions {
  /** The executable, as an absolute path. */
  readonly command: string;
  readonly environmentFile: string;
  /** `[HOST:]PORT` for probes and metrics. */
  readonly listen: string;
}

/** A unit of systemd's for the worker: it starts again after faults, but not where that cannot help. */
export function systemdUnit({ command, environmentFile, listen }: UnitOptions): string {
  return `# /etc/systemd/system/bemi-worker.service, after: npm install --global @bemi/core
# ${environmentFile}, readable by root alone, says where the database is:
#   DATABASE_URL=postgres://bemi_worker:...@localhost:5432/app
[Unit]
Description=Bemi worker: from the Write-Ahead Log of PostgreSQL into the log of changes
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
ExecStart=${command} --listen ${listen}
EnvironmentFile=${environmentFile}
Environment=NODE_ENV=production
Restart=on-failure
RestartSec=5
# Wrong usage, a schema that is missing or of another version, WAL that is lost: a restart does not mend these.
RestartPreventExitStatus=2 4 5
# SIGTERM ends it after the transaction under way.
KillSignal=SIGTERM
TimeoutStopSec=60
DynamicUser=yes
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
LockPersonality=yes
CapabilityBoundingSet=
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target
`;
}
