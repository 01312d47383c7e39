// What holds semicolons that end no statement, and all else. In this order: what opens first wins.
const TOKEN =
  /\/\*[^]*?\*\/|--[^\n]*|\be'[^'\\]*(?:(?:\\[^]|'')[^'\\]*)*'|'[^']*'|"[^"]*"|\$(\w*)\$[^]*?\$\1\$|;|\w+|[^]/gi;

/** The statements of a script, each without its semicolon and with the comments before it. */
export function splitStatements(sql: string): string[] {
  const statements: string[] = [];
  let statement = "";
  for (const [token] of sql.matchAll(TOKEN)) {
    if (token === ";") {
      statements.push(statement.trim());
      statement = "";
    } else statement += token;
  }
  if (statement.trim() !== "") statements.push(statement.trim());
  return statements;
}
