/**
 * Rules for Prometheus about what `bemi worker --listen` tells, as the YAML of a rule file. Where several workers stand
 * by for one slot, the one that reads it speaks for it.
 */
export function alertRules(): string {
  return ALERTS;
}

const ALERTS =
  `# Alerts about Bemi's worker, for rule_files of prometheus.yml. Check: promtool check rules bemi.yml
groups:
  - name: bemi
    rules:
      - alert: BemiWorkerMissing
        expr: absent(bemi_worker_mode)
        for: 5m
        labels: { severity: critical }
        annotations:
          summary: No worker answers
          description: Changes are not recorded, and the replication slot keeps the Write-Ahead Log. Run bemi worker, and see bemi status.

      - alert: BemiNobodyReads
        expr: max by (database) (bemi_worker_mode{mode=~"bulk|stream|poll"}) == 0
        for: 5m
        labels: { severity: critical }
        annotations:
          summary: No worker reads the Write-Ahead Log of {{ $labels.database }}
          description: They are all standing by or cannot connect. See bemi status, and bemi_worker_last_error_timestamp_seconds.

      - alert: BemiWalSoonLost
        expr: min by (database, slot) (bemi_slot_time_to_loss_seconds) < 3600
        for: 2m
        labels: { severity: critical }
        annotations:
          summary: The slot {{ $labels.slot }} loses changes within {{ $value | humanizeDuration }}
          description: max_slot_wal_keep_size is nearly used up. Let the worker catch up, or raise it.

      - alert: BemiSlotNotReserved
        expr: max by (database, slot, status) (bemi_slot_wal_status{status=~"unreserved|lost"}) == 1
        labels: { severity: critical }
        annotations:
          summary: The WAL of the slot {{ $labels.slot }} is {{ $labels.status }}
          description: PostgreSQL removes it at the next checkpoint, or has done so. See bemi doctor.

      - alert: BemiGap
        expr: bemi_gaps_total > 0
        labels: { severity: critical }
        annotations:
          summary: WAL was lost before it was read
          description: The log says nothing of a stretch of time. It is a row of bemi.gaps. See bemi status.

      - alert: BemiFarBehind
        expr: max by (database, slot) (bemi_slot_confirmed_lag_bytes) > 1e9
        for: 15m
        labels: { severity: warning }
        annotations:
          summary: The worker is {{ $value | humanize1024 }}B of WAL behind
          description: It is slower than the application writes, or a transaction stays open. See bemi status.

      - alert: BemiSlow
        expr: max by (database) (bemi_heartbeat_seconds) > 60
        for: 10m
        labels: { severity: warning }
        annotations:
          summary: Changes take {{ $value | humanizeDuration }} to be recorded

      - alert: BemiSilent
        expr: time() - max by (database) (bemi_heartbeat_timestamp_seconds) > 300
        for: 10m
        labels: { severity: critical }
        annotations:
          summary: No heartbeat came back for {{ $value | humanizeDuration }}
          description: The worker is connected, and nothing comes through. See bemi status, and its log.

      - alert: BemiSetAside
        expr: increase(bemi_changes_set_aside_total[1h]) > 0
        labels: { severity: warning }
        annotations:
          summary: The log refused changes, which are kept in bemi.set_aside
          description: See their SQLSTATE there, then select bemi.retry_set_aside().

      - alert: BemiReconnects
        expr: increase(bemi_worker_reconnects_total[15m]) > 10
        labels: { severity: warning }
        annotations:
          summary: The worker loses its connection again and again

      - alert: BemiMaintenanceFails
        expr: increase(bemi_worker_maintenance_failures_total[3h]) > 1
        labels: { severity: warning }
        annotations:
          summary: Partitions of the log are not looked after
          description: Run bemi maintain as the owner.
`;
