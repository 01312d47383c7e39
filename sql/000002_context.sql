-- The context of a statement: what the application said, and what the database knows. Nothing here ever raises.

create function "bemi".parse_object(a_text text) returns jsonb
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  v_value jsonb;
begin
  v_value := a_text::jsonb;
  return case jsonb_typeof(v_value) when 'object' then v_value end;
exception when others then
  return null;
end
$$;

comment on function "bemi".parse_object(text) is 'The JSON object that a text holds, or NULL where it holds anything else.';

-- The statement up to the end of its last `Bemi*/`, where nothing but blanks, semicolons and other comments follow: Rails
-- and tracers add theirs behind. Each of those is taken off whole, so that none can begin inside a literal: one that
-- holds another comment's end, or a `--`, is not looked behind.
create function "bemi".before_comments(a_statement text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  v_rest text := rtrim(a_statement, E' \t\r\n;');
  v_at integer;
  v_body text;
begin
  for v_count in 1 .. 8 loop
    exit when right(v_rest, 7) = ' Bemi*/' or right(v_rest, 2) <> '*/';
    v_at := position('*/' in reverse(left(v_rest, -2)));
    v_body := right(v_rest, v_at + 1);
    if v_at = 0 or position('*/' in v_body) < length(v_body) - 1 or v_body like '%--%' then
      return '';
    end if;
    v_rest := rtrim(left(v_rest, -(v_at + 3)), E' \t\r\n;');
  end loop;
  return v_rest;
end
$$;

-- Only a comment at the very end of the statement counts: a literal cannot reach there. Of several openings the last
-- is taken; what an earlier, quoted one would add does not parse.
create function "bemi".comment_context(a_statement text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select case when found.at > 0 then
    left(split.body, -char_length(' Bemi*/')) end
  from (select "bemi".before_comments(a_statement) as statement) as trimmed,
    lateral (select case when right(trimmed.statement, 7) = ' Bemi*/'
      then position(reverse('/*Bemi ') in reverse(trimmed.statement)) else 0 end as at) as found,
    lateral (select right(trimmed.statement, greatest(found.at - 1, 0)) as body) as split
$$;

create function "bemi".without_comment(a_statement text, a_comment text) returns text
language sql immutable set search_path = pg_catalog, pg_temp
as $$
  select rtrim(left("bemi".before_comments(a_statement), -char_length('/*Bemi ' || a_comment || ' Bemi*/')), E' \t\r\n;')
$$;

-- The JSON object that a comment means, NULL where it means none. The worker reads other Bemis' messages the same way.
-- Without a context, Rails writes null and TypeORM undefined. Through psycopg2, SQLAlchemy puts a statement's values into
-- its copy of it, which comes last and may then be no JSON: what stands before it is still good.
-- Django percent-escapes the characters below and no others, and leaves none of them as it is; where no parameters are
-- bound it doubles each `%` besides. Nobody else writes Python's blanks, SQL last, and none of these characters.
create function "bemi".comment_object(a_comment text) returns text
language plpgsql immutable set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := case when a_comment in ('null', 'undefined') then '{}' else a_comment end;
  v_character text;
begin
  if v_text ~ '%(2[1346AB]|3[BCEF]|40|5E|60|7C)' and v_text ~ '[{ ]"SQL": "'
    and v_text ~ E'^[A-Za-z0-9_{},:"''\\\\/=()% .~[\\]-]*$'
  then
    if replace(v_text, '%%', '') not like E'%\\%%' then
      v_text := replace(v_text, '%%', '%');
    end if;
    foreach v_character in array string_to_array('!#$&*+;<>?@^`|', null) loop
      v_text := replace(v_text, '%' || upper(to_hex(ascii(v_character))), v_character);
    end loop;
  end if;
  if "bemi".parse_object(v_text) is not null then
    return v_text;
  end if;
  v_text := regexp_replace(v_text, ', "SQL": ".*$', '}');
  return case when "bemi".parse_object(v_text) is not null then v_text end;
end
$$;

-- The same of a client's statement. Once their texts are left out, so is the one that Django puts into the comment.
create function "bemi".commented(a_comment text) returns text
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_object text := "bemi".comment_object(a_comment);
begin
  return case when "bemi".keeps_statements() then v_object else (v_object::jsonb - 'SQL')::text end;
end
$$;

-- What the comment of the client's statement says, for what is written deeper than that: current_query() is the client's
-- there too. Read once in each statement and kept in a transaction-local setting, as `time` or `time object`: to read a
-- statement of megabytes for each row that it leads to would be quadratic. The time is in a form that no setting changes.
create function "bemi".outer_comment() returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp
as $$
declare
  v_time text := extract(epoch from statement_timestamp())::text;
  v_known text := current_setting('bemi.commented', true);
begin
  if split_part(v_known, ' ', 1) is distinct from v_time then
    v_known := v_time || coalesce(' ' || case when current_query() like '% Bemi*/%'
      then "bemi".commented("bemi".comment_context(current_query())) end, '');
    perform set_config('bemi.commented', v_known, true);
  end if;
  return nullif(substr(v_known, length(v_time) + 2), '');
end
$$;

-- The role in force: inside a SECURITY DEFINER function current_user is the definer.
create function "bemi".current_role_name() returns text
language sql stable
return coalesce(nullif(current_setting('role', true), 'none'), session_user);

create function "bemi".database_facts() returns jsonb
language sql stable
return jsonb_build_object('user', session_user, 'role', "bemi".current_role_name(), 'pid', pg_backend_pid(),
  'application_name', coalesce(current_setting('application_name', true), ''));

-- What is stored beside a change: the application's keys, then `client` and `jwt` (PostgREST), `SQL`, and `db`, which
-- always wins. a_statement is the client's statement, NULL where it is another's; a_context what the application said, when
-- the statement began.
create function "bemi".current_context(
  a_statement text default current_query(), a_context text default current_setting('bemi.context', true)
) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
  v_context jsonb := "bemi".parse_object(nullif(a_context, ''));
  v_comment text;
  v_commented jsonb;
  v_object jsonb;
  v_statement text := a_statement;
  v_apart jsonb := '{}';
begin
  if v_statement like '% Bemi*/%' then
    v_comment := "bemi".comment_context(v_statement);
    v_commented := "bemi".parse_object("bemi".commented(v_comment));
    if v_commented is not null then
      v_statement := "bemi".without_comment(v_statement, v_comment);
    end if;
  end if;
  -- Kept apart, for they differ in trust: the server verified the claims, the browser wrote the header.
  if current_setting('request.jwt.claims', true) <> '' or current_setting('request.headers', true) <> '' then
    v_object := "bemi".parse_object(nullif(current_setting('request.jwt.claims', true), ''));
    v_apart := case when v_object is null then '{}' else jsonb_build_object('jwt', v_object) end;
    v_object := "bemi".parse_object("bemi".parse_object(nullif(current_setting('request.headers', true), '')) ->> 'x-bemi-context');
    v_apart := v_apart || case when v_object is null then '{}' else jsonb_build_object('client', v_object) end;
  end if;
  return case when v_statement is null or not "bemi".keeps_statements() then '{}' else jsonb_build_object('SQL', left(v_statement, 1000)) end
    || coalesce(v_context, case when coalesce(a_context, '') = '' then v_commented end, '{}')
      - array['db', 'jwt', 'client']
    || v_apart
    || jsonb_build_object('db', "bemi".database_facts()
      || case when v_context is null and a_context <> ''
        then '{"context_error": "not a JSON object"}' else '{}' end::jsonb);
end
$$;
