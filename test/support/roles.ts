/** SQL of the roles of least privilege, by names of a test's own: roles are the cluster's, and other tests make theirs. */
export function ownRoles(prefix: string, sql: string): string {
  return sql.replaceAll(/\bbemi_(application|reader|worker)\b/g, `${prefix}_$1`);
}
