-- id: splits_cover_todays_games
-- why: a game without splits cannot be recommended
-- owner: data-pipeline
-- tags: issue-69
-- key: external_id
-- population: select count(*) from core_betting.supplementary_games
-- on_empty: fail
select g.external_id
from core_betting.supplementary_games g
where g.status = 'scheduled'
  and not exists (
      select from core_betting.betting_splits s
      where s.game_id = g.game_id and s.split_type = 'moneyline');
