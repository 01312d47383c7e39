import type { SlotStatus, Status } from "../install/mod.ts";
import { showBytes, showSeconds } from "./amounts.ts";
import type { Io } from "./io.ts";
import { paint } from "./paint.ts";

/** Tables that are named one by one. */
const NAMED_TABLES = 12;

/** How tracking stands, on one screen: a heading and what there is to say under it, the bad in colour. */
export function statusScreen(found: Status, schema: string, io: Io): string {
  const bad = (text: string): string => paint(io, "red", text);
  const doubtful = (text: string): string => paint(io, "yellow", text);
  const good = (text: string): string => paint(io, "green", text);
  const { version, trackAll, followsDdl, slot, workers, log, unseen } = found;
  const rows: [heading: string, lines: string[]][] = [];
  const hidden = (what: string): boolean => unseen.includes(what);

  rows.push(["installation", [
    `schema "${schema}"${version === undefined ? "" : `, version ${version}`}${
      trackAll === undefined ? "" : `; new tables are ${trackAll ? "" : "not "}tracked by themselves`
    }`,
    ...(followsDdl === false
      ? [doubtful("new partitions go unnoticed until bemi init is run again: no event trigger")]
      : []),
  ]]);
  if (!hidden("tables")) rows.push(["tables", tableLines(found)]);
  if (found.untracked.length > 0) rows.push(["untracked", untrackedLines(found)]);
  if (slot) rows.push(["slot", slotLines(slot, { bad, doubtful, good })]);
  if (slot || workers.length > 0) {
    rows.push([
      "workers",
      workers.length === 0
        ? [slot?.active ? `somebody reads the slot (pid ${slot.activePid})` : doubtful("none is connected")]
        : workers.map(({ role, address, connections, age, isStreaming }) =>
          `${role}${address ? ` from ${address}` : ""}, ${connections} connection${
            connections === 1 ? "" : "s"
          }${age === undefined ? "" : ` for ${showSeconds(age)}`}${isStreaming ? ", streaming" : ""}`
        ),
    ]);
  }
  const { lastChangeAge, checkpoint, gaps, setAside, defaultPartition, newestPartition, seal } = log;
  const heartbeat = checkpoint?.heartbeat === undefined ? "" : `, heartbeat ${checkpoint.heartbeat} ms`;
  rows.push(["log", [
    ...(hidden("last change")
      ? []
      : [lastChangeAge === undefined ? "no change yet" : `last change ${showSeconds(lastChangeAge)} ago`]),
    ...(checkpoint ? [`checkpoint ${showSeconds(checkpoint.age)} ago${heartbeat}`] : []),
    ...(setAside ? [doubtful(`${setAside} set aside: select "${schema}".retry_set_aside();`)] : []),
    `partitions ${newestPartition ? `up to ${newestPartition}` : doubtful("missing")}${
      defaultPartition.rows
        ? doubtful(
          `; the default one holds ${defaultPartition.rows.toLocaleString("en")} changes: bemi maintain`,
        )
        : defaultPartition.rows === undefined && defaultPartition.bytes > 0
        ? doubtful(`; the default one takes ${showBytes(defaultPartition.bytes)}`)
        : ""
    }`,
  ]]);
  if (gaps) {
    rows.push([
      "gaps",
      gaps.length === 0
        ? [good("none")]
        : gaps.slice(-3).map(({ from, to, reason, detectedAt }) =>
          bad(`${from} to ${to}, found ${detectedAt}: ${reason}`)
        ).concat(gaps.length > 3 ? [bad(`and ${gaps.length - 3} more`)] : []),
    ]);
  }
  if (seal && slot) {
    rows.push(["seal", [
      seal === "on" ? good("on") : seal === "pending" ? doubtful("not enforced yet") : "off",
    ]]);
  }
  if (unseen.length > 0) rows.push(["unseen", [doubtful(`this role may not see: ${unseen.join(", ")}`)]]);
  return rows.map(([heading, lines]) =>
    lines.map((line, i) => `${paint(io, "bold", (i === 0 ? heading : "").padEnd(14))}${line}\n`).join("")
  ).join("");
}

function tableLines({ tables }: Status): string[] {
  if (tables.length === 0) return ["none is tracked"];
  const shown = tables.slice(0, NAMED_TABLES).map((t) =>
    [
      `${t.schema}.${t.table}`,
      t.capture,
      ...(t.ignore.length > 0 ? [`ignores ${t.ignore.join(", ")}`] : []),
      ...(t.mask.length > 0 ? [`masks ${t.mask.join(", ")}`] : []),
      ...(t.strict ? ["strict"] : []),
    ].join("  ")
  );
  const more = tables.length - shown.length;
  const wal = tables.filter(({ capture }) => capture === "wal").length;
  return [
    `${tables.length} tracked, ${wal} from the Write-Ahead Log, ${tables.length - wal} by triggers`,
    ...shown,
    ...(more > 0 ? [`and ${more} more: bemi status --json`] : []),
  ];
}

function untrackedLines({ untracked }: Status): string[] {
  const more = untracked.length - NAMED_TABLES;
  return [
    "until bemi track names them:",
    ...untracked.slice(0, NAMED_TABLES),
    ...(more > 0 ? [`and ${more} more: bemi status --json`] : []),
  ];
}

type Colours = Readonly<Record<"bad" | "doubtful" | "good", (text: string) => string>>;

function slotLines(slot: SlotStatus, { bad, doubtful, good }: Colours): string[] {
  const { name, walStatus, invalidationReason, active, activePid, retained, confirmedLag } = slot;
  if (walStatus === "missing") return [bad(`${name} is missing: changes are not kept for a worker`)];
  if (walStatus === "lost") {
    return [bad(`${name} is lost${invalidationReason ? ` (${invalidationReason})` : ""}: see bemi doctor`)];
  }
  const state = walStatus === "unreserved" ? bad : walStatus === "extended" ? doubtful : good;
  return [
    `${name}, ${state(walStatus)}, ${active ? `read by pid ${activePid}` : doubtful("read by nobody")}`,
    `keeps ${showBytes(retained ?? 0)} of WAL, ${showBytes(confirmedLag ?? 0)} not confirmed`,
    lossLine(slot, { bad, doubtful, good }),
    ...(slot.spilledTransactions
      ? [
        `the server spilled ${showBytes(slot.spilledBytes ?? 0)} of large transactions to its disk ` +
        "(logical_decoding_work_mem)",
      ]
      : []),
  ];
}

/** An hour before WAL is lost is late, a day is soon. */
function lossLine({ safeWalSize, walRate, timeToLoss }: SlotStatus, { bad, doubtful }: Colours): string {
  if (safeWalSize === undefined) {
    return doubtful("nothing limits what it keeps: set max_slot_wal_keep_size, or the disk can fill up");
  }
  const rate = walRate === undefined ? "" : ` at ${showBytes(walRate)}/s`;
  const left = timeToLoss === undefined ? "" : `: ${showSeconds(timeToLoss)}`;
  const colour = timeToLoss === undefined || timeToLoss > 86_400
    ? (text: string) => text
    : timeToLoss > 3600
    ? doubtful
    : bad;
  return colour(`loses WAL after ${showBytes(safeWalSize)} more${rate}${left}`);
}
