-- A catalog of large.schemas × 100 tables, each with keys, indexes and a few of the usual faults. 10,000 tables:
--   createdb large
--   PGOPTIONS='-c large.schemas=100' psql large -f tests/data/large_catalog.sql
--   /usr/bin/time -v postern audit --url postgres:///large
-- It commits after every schema, so that it needs no more locks than a server has.
do $$
declare
  s int; t int; home text; away text;
begin
  for s in 1..coalesce(current_setting('large.schemas', true), '3')::int loop
    home := format('area_%s', s);
    away := format('area_%s', greatest(s - 7, 1));
    execute format('create schema %I', home);
    for t in 1..100 loop
      -- One of 30 has no primary key, one of three refers to its neighbour, one to another schema,
      -- one by its name only.
      execute format(
        'create table %I.%I (id bigint %s, label_%s text, note_%s text, a numeric, b numeric, c date, d jsonb,
           e boolean, f text not null default %L, seen_at timestamptz, %s)',
        home, format('s%s_item%s', s, t), case when t % 30 <> 8 then 'primary key' end, t, s, 'x',
        case t % 3
          when 2 then format('near_id bigint references %I.%I', home, format('s%s_item%s', s, t - 1))
          when 0 then format('far_id bigint references %I.%I', away, format('s%s_item1', greatest(s - 7, 1)))
          else format('s%s_item%s_id bigint', s, t % 3 + 1) end);
      execute format('create index on %I.%I (seen_at)', home, format('s%s_item%s', s, t));
      if t % 10 = 0 then
        execute format('create index on %I.%I (seen_at, c)', home, format('s%s_item%s', s, t));
      end if;
    end loop;
    commit;
  end loop;
end
$$;
